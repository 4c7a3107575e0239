"""The diagnosis of the parents in the page, where the run's folder has one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mergesearch.diagnosis import NO_ADVICE, Diagnosis, Table, tables_of


@dataclass(frozen=True)
class Findings:
    """Advice from the parents alone, and the tables that it rests on."""

    #: Sentences, each with its reason.
    advice: Sequence[str]
    #: Settings that are not the same, a line each.
    differences: Sequence[str]
    tables: Sequence[Table]


def findings_of(folder: Path) -> Findings | None:
    """Read a run's diagnosis.

    Raises:
        InputError: the file is damaged.
    """
    found = Diagnosis.of_run(folder)
    if found is None:
        return None
    advice = [advice.text for advice in found.advice] or [NO_ADVICE]
    return Findings(advice, found.differences, tables_of(found))
