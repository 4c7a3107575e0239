"""Files of prompts, as the command line names them."""

from collections.abc import Sequence
from pathlib import Path

from mergesearch.errors import InputError


def files_by_parent(given: Sequence[str]) -> dict[str, Path]:
    """Read `PARENT=FILE` options.

    Raises:
        InputError: one is not written so, or a parent is named twice.
    """
    files: dict[str, Path] = {}
    for option in given:
        name, sign, file = option.partition("=")
        if not (name and sign and file) or name in files:
            raise InputError(f"--prompts is PARENT=FILE, once for each parent, got {option!r}")
        files[name] = Path(file)
    return files
