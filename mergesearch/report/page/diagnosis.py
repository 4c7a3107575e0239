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
    """What the parents alone say of their merge."""

    #: Sentences, each with its reason.
    advice: Sequence[str]
    tables: Sequence[Table]


def diagnosis_of(folder: Path) -> Diagnosis | None:
    """Read the diagnosis in a run's folder: `{"advice": [...], "tables": [{title, ...}]}`.

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
