"""Naming a model: a folder or hub id, with a revision, and a LoRA adapter on top."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_serializer, model_validator

from mergesearch.config import Config
from mergesearch.errors import InputError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class ModelPath(Config):
    """A folder, or a repository on the hub at a revision."""

    shorthand: ClassVar = {"type": "string"}
    written: ClassVar = "a folder or a hub id"

    path: str
    revision: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        path, at, revision = value.rpartition("@")
        if not (at and path and revision) or _is_local(value):  # a folder has no revisions
            path, revision = value, ""
        if not path.strip():
            raise ValueError(f"a model is written path or path@revision, got {value!r}")
        return {"path": path, "revision": revision or None}

    def __str__(self) -> str:
        return f"{self.path}@{self.revision}" if self.revision else self.path

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine, once resolved."""
        return os.path.isabs(self.path)

    def resolved(self, folder: Path, *, must_exist: bool = True) -> "ModelPath":
        """Make a path relative to `folder` absolute; a hub id stays as it is.

        Args:
            folder: holds the file that has the path.
            must_exist: False names a folder that is gone by where it was.

        Raises:
            InputError: no such folder, and the text is no hub id either.
        """
        local = self._in(folder)
        if local.exists() or not (must_exist or self.is_hub_id):
            return ModelPath(path=str(local.resolve()))
        if not self.is_hub_id:
            raise InputError(f"no such model folder: {local}")
        return self

    def exists(self, folder: Path) -> bool:
        """Tell if it is there, relative to `folder`: an @ may be part of a folder's name."""
        return self._in(folder).exists()

    @property
    def is_hub_id(self) -> bool:
        """True for what may be a repository's name."""
        return bool(_HUB_ID.fullmatch(self.path))

    def _in(self, folder: Path) -> Path:
        return folder / Path(str(self)).expanduser()

    def relative(self, folder: Path) -> "ModelPath":
        """Write the path as a file in `folder` would: the inverse of `resolved`."""
        if not self.is_local:
            return self
        return ModelPath(path=os.path.relpath(self.path, folder.resolve()))


def _is_local(text: str) -> bool:
    """Tell if a text can only be a folder of this machine."""
    return text.startswith(("/", "./", "../", "~"))


class ModelRef(Config):
    """A model as recipes name it: `path`, `hub/id@revision`, or either `+adapter`.

    A folder's name may have a `+` or `@` as well: which is meant shows when it is `resolved`.
    """

    shorthand: ClassVar = {"type": "string"}
    written: ClassVar = "a folder or a hub id"

    model: ModelPath
    lora: ModelPath | None = None

    def __eq__(self, other: object) -> bool:
        """Compare names; a plan compares the same few objects many thousand times."""
        if self is other or not isinstance(other, ModelRef):
            return self is other
        return self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)

    @property
    def _name(self) -> tuple[str, str | None, ModelPath | None]:
        return self.model.path, self.model.revision, self.lora

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        model, _, adapter = value.rpartition("+")
        return {"model": model, "lora": adapter} if model and adapter else {"model": value}

    @model_serializer
    def _to_string(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"{self.model}+{self.lora}" if self.lora else str(self.model)

    def resolved(self, folder: Path, *, must_exist: bool = True) -> "ModelRef":
        """Make both parts' relative paths absolute; see `ModelPath.resolved`.

        Raises:
            InputError: no such folder, and the text is no hub id either.
        """
        # what is there decides where the adapter begins
        meant = max(self._readings(), key=lambda ref: ref._found(folder))
        if must_exist and not meant._found(folder) and str(self).count("+") > 1:
            raise InputError(
                "no such model folder, and a model takes one adapter, written model+adapter, got "
                f"{str(self)!r}"
            )
        meant = meant if meant._found(folder) else self
        return ModelRef(
            model=meant.model.resolved(folder, must_exist=must_exist),
            lora=meant.lora and meant.lora.resolved(folder, must_exist=must_exist),
        )

    def _readings(self) -> "Iterator[ModelRef]":
        """List what the text may mean, a folder without an adapter first."""
        text = str(self)
        yield ModelRef(model=ModelPath(path=text))
        for i in (i for i, sign in enumerate(text) if sign == "+"):
            parts = text[:i], text[i + 1 :]
            if all(part.strip() for part in parts):
                model, lora = map(ModelPath.model_validate, parts)
                yield ModelRef(model=model, lora=lora)
        yield self

    def _found(self, folder: Path) -> int:
        """Rank a reading: 2 if all of it is there, 1 if the rest may be on the hub."""
        parts = [self.model, *([self.lora] if self.lora else [])]
        there = [part.exists(folder) for part in parts]
        if all(there):
            return 2
        return int(
            all(is_there or part.is_hub_id for is_there, part in zip(there, parts, strict=True))
        )

    def relative(self, folder: Path) -> "ModelRef":
        """Write both parts as a file in `folder` would."""
        return ModelRef(
            model=self.model.relative(folder), lora=self.lora and self.lora.relative(folder)
        )
