"""Keys of recipes beside mergekit's: prompts that methods look at, and AIM."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from mergesearch.config import Config
from mergesearch.errors import InputError
from mergesearch.recipe.reference import ModelRef


class PromptFile(Config):
    """The prompts of one model: a text a line, or JSONL."""

    model: ModelRef
    path: str

    def with_file(self, change: Callable[[str], str]) -> "PromptFile":
        """Replace the file's path."""
        return self.model_copy(update={"path": change(self.path)})


def _from_mapping(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [{"model": model, "path": path} for model, path in value.items()]
    return value


def _to_mapping(files: tuple[PromptFile, ...]) -> dict[str, str]:
    return {str(file.model): file.path for file in files}


#: Files of prompts by model; in YAML a mapping.
Calibration = Annotated[
    tuple[PromptFile, ...],
    BeforeValidator(_from_mapping, json_schema_input_type=dict[str, str]),
    PlainSerializer(_to_mapping),
]


class Aim(Config):
    """Activation-Informed Merging (arXiv:2502.02421): bounds on change by channel.

    The merged delta of an input channel is multiplied by 1 - a (1 - omega), a the mean magnitude of
    what the base gets there, as a part of the layer's largest.
    """

    base: ModelRef
    #: What is left of the delta of the channel that the base uses most; 1 changes nothing.
    omega: float = Field(ge=0, le=1)


def resolved_file(path: str, folder: Path, *, must_exist: bool = True) -> str:
    """Make a path relative to a folder absolute.

    Raises:
        InputError: there is no such file.
    """
    file = folder / Path(path).expanduser()
    if must_exist and not file.is_file():
        raise InputError(f"calibration: no such file of prompts: {file}")
    return str(file.resolve())


def relative_file(path: str, folder: Path) -> str:
    """Write a path as a file in a folder would: the inverse of `resolved_file`."""
    return os.path.relpath(path, folder.resolve()) if os.path.isabs(path) else path
