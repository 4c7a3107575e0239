"""The diagnosis of the parents in the page, where the run's folder has one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mergesearch.diagnosis import Diagnosis, Table, tables_of


@dataclass(frozen=True)
class Findings:
    """Advice from the parents alone, and the tables that it rests on."""

    #: Sentences, each with its reason.
    advice: Sequence[str]
    tables: Sequence[Table]


def findings_of(folder: Path) -> Findings | None:
    """Read a run's diagnosis.

    Raises:
        InputError: the file is damaged.
    """
    found = Diagnosis.of_run(folder)
    if found is None:
        return None
    return Findings([advice.text for advice in found.advice], tables_of(found))
