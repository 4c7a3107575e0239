"""The folder of a run: made by one space, held by one process at a time."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.files import held, partial_of, write_whole

_ABOUT, _LOCK = "run.json", "lock"
#: Of what a run folder holds; another version of mergesearch may read and write another.
_FORMAT = 3


@contextlib.contextmanager
def hold(folder: Path, identity: Mapping[str, Any]) -> Iterator[Path]:
    """Make or re-open a run folder, and keep other processes out until the block ends.

    Args:
        folder: the run's folder; made where it is missing.
        identity: what made the run, JSON-able; a folder made by something else is refused.

    Raises:
        InputError: the folder is another space's, is no run folder, or is in use.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"the run folder must be a folder, but {folder} is a file")
    # a kill may have come before the folder said what it is
    ours = {_LOCK, partial_of(folder / _ABOUT).name}
    strangers = folder.exists() and any(p.name not in ours for p in folder.iterdir())
    if strangers and not (folder / _ABOUT).exists():
        raise InputError(f"{folder} is not empty and is no run folder; give --out another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _LOCK).open("a").close()  # its owner may touch a file that nobody may write
    except OSError as error:
        raise InputError(f"cannot write in the run folder {folder}: {error.strerror}") from None
    with held(folder / _LOCK, folder):
        _claim(folder, identity)
        yield folder


def is_run(folder: Path) -> bool:
    """Say if a folder is that of a run."""
    return (folder / _ABOUT).is_file()


def identity_of(folder: Path) -> dict[str, Any]:
    """Read what made a run.

    Raises:
        InputError: the folder is no run folder, or of another version's format.
    """
    if not is_run(folder):
        raise InputError(f"{folder} is no run folder: it has no {_ABOUT}")
    try:
        data = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        version = data.pop("format", None)
    except (ValueError, AttributeError, TypeError):
        raise InputError(f"{folder / _ABOUT} is damaged; restore it from a copy") from None
    if version != _FORMAT:
        raise InputError(
            f"{folder} is of another version of mergesearch: its format is {version}, and this one "
            f"reads {_FORMAT}; give --out another name"
        )
    identity: dict[str, Any] = data
    return identity


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(identity))
    if not (folder / _ABOUT).exists():
        text = json.dumps({"format": _FORMAT, **wanted}, indent=2)
        write_whole(folder / _ABOUT, text + "\n")
        return
    present = identity_of(folder)
    if present != wanted:
        where = _first_difference(present, wanted)
        raise InputError(
            f"{folder} was made by another space ({where}); give --out another name, "
            "or set the space back to continue that run"
        )


def _first_difference(old: Any, new: Any, key_path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                return _first_difference(
                    old.get(key), new.get(key), f"{key_path}.{key}".lstrip(".")
                )
    return f"{key_path} was {json.dumps(old)} and is {json.dumps(new)}"
