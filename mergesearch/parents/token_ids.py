"""Vocabularies of models, those without a `tokenizer.json` as well."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.parents.checkpoint import TOKENIZER, Checkpoint
from mergesearch.parents.tokenizer import FLAGS, AddedEntry, load_tokenizer

_SUFFIXES = frozenset({".bpe", ".codes", ".model", ".spm", ".tiktoken", ".tokenizer", ".vocab"})
_BEGINNINGS = ("added_tokens", "dict", "merges", "tekken", "tokenizer", "vocab")
_SETTINGS = "tokenizer_config.json"


class TokenIds:
    """The vocabularies of models, by the folders of their tokenizers.

    They are read from `tokenizer.json`. Where a tokenizer is older than that file, and others
    differ from it, all are loaded by transformers, so that they are compared in one form.

    Args:
        checkpoints: the models, the first first.
        needed: ids are needed although all tokenizers are the same.
    """

    def __init__(self, checkpoints: Iterable[Checkpoint], *, needed: bool) -> None:
        self._ids = {of.tokenizer_folder: of.vocabulary for of in checkpoints}
        self._added: dict[Path, Sequence[AddedEntry]] = {}
        names = {folder: _names(folder) for folder in self._ids}
        names = {folder: own for folder, own in names.items() if own - {_SETTINGS}}
        #: The folders of tokenizers of which nothing is known but that they are others.
        self.unknown: tuple[Path, ...] = ()
        old = [folder for folder, own in names.items() if TOKENIZER not in own]
        if not old:
            return  # and no file is read
        files = {folder: _hashes(folder, own) for folder, own in names.items()}
        if not (needed or _differ(list(files.values()))):
            return
        loaded = {folder: _loaded(folder) for folder in files}
        for folder, tokens in loaded.items():
            if tokens is not None:
                self._ids[folder] = tokens.ids
                if folder in old:  # which the file would say as well
                    self._added[folder] = tokens.added
        words = [
            {name: of for name, of in own.items() if name != _SETTINGS} for own in files.values()
        ]
        if _differ(words):
            self.unknown = tuple(folder for folder in old if self._ids[folder] is None)

    def of(self, checkpoint: Checkpoint) -> Mapping[str, int] | None:
        """Give a model's; None where it has no tokenizer, or none that transformers loads."""
        return self._ids[checkpoint.tokenizer_folder]

    def added(self, checkpoint: Checkpoint) -> dict[str, AddedEntry]:
        """Give the tokens that a model's tokenizer has beside its own model's."""
        entries = self._added.get(checkpoint.tokenizer_folder, checkpoint.added_tokens)
        return {entry["content"]: entry for entry in entries}


@dataclass(frozen=True)
class _Loaded:
    """A tokenizer's words, as transformers loads them."""

    ids: Mapping[str, int]
    added: Sequence[AddedEntry]


def _names(folder: Path) -> set[str]:
    """List the files of a tokenizer: of its tokens, and of how it is loaded."""
    return {file.name for file in folder.iterdir() if file.is_file() and _may_have_tokens(file)}


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    return {name: sha256((folder / name).read_bytes()).digest() for name in names}


def _may_have_tokens(file: Path) -> bool:
    return file.name.startswith(_BEGINNINGS) or file.suffix in _SUFFIXES


def _differ(files: Sequence[Mapping[str, bytes]]) -> bool:
    return any(own != files[0] for own in files[1:])


def _loaded(folder: Path) -> _Loaded | None:
    """Load a tokenizer; None where transformers cannot, or finds no tokens."""
    try:
        with quiet():
            tokenizer = load_tokenizer(folder)
    except InputError:
        return None
    ids = tokenizer.get_vocab()
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    entries = [
        {"content": str(added[i]), **{flag: getattr(added[i], flag) for flag in FLAGS}}
        for i in sorted(added)
    ]
    return _Loaded(ids, entries) if ids else None
