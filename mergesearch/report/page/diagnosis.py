"""A diagnosis of the parents in the page, where the run's folder has one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError

_FILE = "diagnosis.json"


@dataclass(frozen=True)
class Table:
    """A table of a diagnosis."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Diagnosis:
    """Advice from the parents alone, and the tables that it rests on."""

    #: Sentences, each with its reason.
    advice: Sequence[str]
    tables: Sequence[Table]


def diagnosis_of(folder: Path) -> Diagnosis | None:
    """Read a run's diagnosis; its keys are those of `Diagnosis` and `Table`.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Diagnosis(data["advice"], [Table(**table) for table in data["tables"]])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged; delete it, and diagnose the parents again") from None
