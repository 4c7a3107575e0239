"""Documents that two models answer differently, with their texts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mergesearch.errors import InputError
from mergesearch.files import write_whole

_FILE = "examples.json"


@dataclass(frozen=True)
class Example:
    """One document: what was asked, what is right, and what models answer."""

    task: str
    doc_id: int
    prompt: str
    #: None where the task does not say.
    right: str | None
    #: By the models' labels.
    answers: Mapping[str, str]


@dataclass(frozen=True)
class Contrast:
    """Documents of a split on which a merge and a parent differ most."""

    #: "search_full" or "held_out".
    split: str
    #: The hashes of the two recipes, the merge's first, by their labels.
    recipes: Mapping[str, str]
    examples: tuple[Example, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of the file."""
        examples = tuple(Example(**example) for example in entry["examples"])
        return cls(entry["split"], entry["recipes"], examples)


def read_contrasts(folder: Path) -> tuple[Contrast, ...]:
    """Read the contrasts of a run; none where nobody has made any.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / _FILE
    if not path.exists():
        return ()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(Contrast.from_json(entry) for entry in entries)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged; delete it, and run the search again") from None


def write_contrasts(folder: Path, contrasts: Sequence[Contrast]) -> None:
    """Write the contrasts of a run, in the place of those that were there."""
    entries = [asdict(contrast) for contrast in contrasts]
    write_whole(folder / _FILE, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
