"""A folder's texts as published: models by names, and no path of a disk."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from mergesearch.config import read_text
from mergesearch.errors import InputError
from mergesearch.exporting.checkpoint import RECIPE_FILE
from mergesearch.recipe import ModelPath, ModelRef, renamed

_ADAPTER = "adapter_config.json"
_ITS_BASE = "base_model_name_or_path"


def published(folder: Path, card: str, hub_ids: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Name models of this machine by hub ids, or by their folders' names alone.

    A folder is the hub id that ends in its name, or the only one that is given, if it is the only
    model. A comment on top of the recipe says which names are of folders.

    Args:
        folder: of an exported model.
        card: its text.
        hub_ids: of models that were merged from folders.

    Returns:
        The card, and other files' texts by their names.

    Raises:
        InputError: the folder's recipe is none.
    """
    texts: dict[str, str] = {}
    names = _Names(folder, hub_ids)
    path = folder / RECIPE_FILE
    if path.is_file():
        text = read_text(path)
        renamed(text, names.see, str(path))
        texts[path.name] = new = names.head() + renamed(text, names.name, str(path))
        card = card.replace(text, new)
    path = folder / _ADAPTER
    if path.is_file():
        config = _settings(path)
        base = config.get(_ITS_BASE)
        if isinstance(base, str):
            ref = ModelRef.model_validate(base)
            config[_ITS_BASE] = str(names.name(names.see(ref)))
            texts[path.name] = json.dumps(config, indent=2) + "\n"
    return card, texts


class _Names:
    """The names of models, once all of them were seen."""

    def __init__(self, folder: Path, hub_ids: Sequence[str]) -> None:
        self._folder = folder
        self._hub_ids = hub_ids
        #: Folders as they are written, and where they are.
        self._seen: dict[ModelPath, PurePath] = {}
        self._models: set[PurePath] = set()

    def see(self, ref: ModelRef) -> ModelRef:
        """Take note of a model."""
        meant = self._meant(ref)
        for part in _parts(meant):
            if _is_folder(part):
                self._seen[part] = PurePath(part.path)
        if _is_folder(meant.model):
            self._models.add(PurePath(meant.model.path))
        return ref

    def name(self, ref: ModelRef) -> ModelRef:
        """Give a model's name."""
        meant = self._meant(ref)
        return ModelRef(
            model=self._name(meant.model),
            lora=None if meant.lora is None else self._name(meant.lora),
        )

    def head(self) -> str:
        """Write the comment on folders that have no hub id; empty if all have."""
        folders = {self._name(part).path: None for part in self._seen if not self._hub_id(part)}
        if not folders:
            return ""
        return (
            f"# of models on the disk where this was merged, the names of the folders: "
            f"{', '.join(folders)}; write where yours are\n"
        )

    def _meant(self, ref: ModelRef) -> ModelRef:
        try:
            return ref.resolved(self._folder)
        except InputError:
            return ref  # a folder that is gone has a name, too

    def _name(self, part: ModelPath) -> ModelPath:
        if part not in self._seen:
            return part
        return ModelPath(path=self._hub_id(part) or self._short(self._seen[part]))

    def _hub_id(self, part: ModelPath) -> str | None:
        path = self._seen[part]
        alike = [i for i in self._hub_ids if i.rpartition("/")[2].lower() == path.name.lower()]
        if not alike and self._models == {path} and len(self._hub_ids) == 1:
            alike = list(self._hub_ids)
        return alike[0] if alike else None

    def _short(self, path: PurePath) -> str:
        """Give a folder's name, numbered where another folder has the same."""
        same = sorted({other for other in self._seen.values() if other.name == path.name})
        return path.name if len(same) == 1 else f"{path.name}-{same.index(path) + 1}"


def _parts(ref: ModelRef) -> Iterator[ModelPath]:
    yield ref.model
    if ref.lora is not None:
        yield ref.lora


def _is_folder(part: ModelPath) -> bool:
    return part.is_local or not part.is_hub_id


def _settings(path: Path) -> dict[str, object]:
    try:
        data = json.loads(read_text(path))
    except ValueError:
        raise InputError(f"{path}: not valid JSON; export the adapter again") from None
    return data if isinstance(data, dict) else {}
