"""Naming a model: a folder or hub id, with a revision, and a LoRA adapter on top."""

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_serializer, model_validator

from mergesearch.config import Config
from mergesearch.errors import InputError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class ModelPath(Config):
    """A folder, or a repository on the hub at a revision."""

    shorthand: ClassVar = {"type": "string"}

    path: str
    revision: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        path, _, revision = value.partition("@")
        if not path.strip() or "@" in revision:
            raise ValueError(f"a model is written path or path@revision, got {value!r}")
        return {"path": path, "revision": revision or None}

    def __str__(self) -> str:
        return f"{self.path}@{self.revision}" if self.revision else self.path

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine, once resolved."""
        return os.path.isabs(self.path)

    def resolved(self, folder: Path) -> "ModelPath":
        """Make a path relative to `folder` absolute; a hub id stays as it is.

        Raises:
            InputError: no such folder, and the text is no hub id either.
        """
        local = folder / Path(self.path).expanduser()
        if self.revision is None and local.exists():
            return ModelPath(path=str(local.resolve()))
        if not _HUB_ID.fullmatch(self.path):
            raise InputError(f"no such model folder: {local}")
        return self

    def relative(self, folder: Path) -> "ModelPath":
        """Write the path as a file in `folder` would: the inverse of `resolved`."""
        if not self.is_local:
            return self
        return ModelPath(path=os.path.relpath(self.path, folder.resolve()))


class ModelRef(Config):
    """A model as recipes name it: `path`, `hub/id@revision`, or either `+adapter`."""

    shorthand: ClassVar = {"type": "string"}

    model: ModelPath
    lora: ModelPath | None = None

    def __eq__(self, other: object) -> bool:
        """Compare names; a plan compares the same few objects many thousand times."""
        return self is other or super().__eq__(other)

    def __hash__(self) -> int:
        return hash((self.model.path, self.model.revision, self.lora))

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        model, *adapters = value.split("+")
        if len(adapters) > 1:
            raise ValueError(f"a model takes one adapter, written model+adapter, got {value!r}")
        return {"model": model, "lora": adapters[0] if adapters else None}

    @model_serializer
    def _to_string(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"{self.model}+{self.lora}" if self.lora else str(self.model)

    def resolved(self, folder: Path) -> "ModelRef":
        """Make both parts' relative paths absolute; see `ModelPath.resolved`."""
        return ModelRef(
            model=self.model.resolved(folder), lora=self.lora and self.lora.resolved(folder)
        )

    def relative(self, folder: Path) -> "ModelRef":
        """Write both parts as a file in `folder` would."""
        return ModelRef(
            model=self.model.relative(folder), lora=self.lora and self.lora.relative(folder)
        )
