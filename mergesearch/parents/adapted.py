"""A checkpoint with an adapter merged into it, tensor by tensor as it is read."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from mergesearch.parents.adapter import Adapter
from mergesearch.parents.architecture import untied
from mergesearch.parents.change import Change
from mergesearch.parents.checkpoint import TOKENIZER, Checkpoint, TensorSpec
from mergesearch.parents.tables import n_rows, with_vocab_size


class AdaptedCheckpoint(Checkpoint):
    """The model that an adapter makes of its base, of which it keeps no tensor.

    Args:
        base: the checkpoint that the adapter was trained on.
        adapter: the adapter.
    """

    def __init__(self, base: Checkpoint, adapter: Adapter) -> None:
        self.folder = base.folder
        self.head = base.head
        self._base = base
        self._adapter = adapter
        self.config = self._adapted_config()
        self.buffers = base.buffers
        self._changes = dict(adapter.changes)
        self.specs = {**base.specs, **{name: self._spec(name) for name in self.changes}}

    @property
    def base(self) -> Checkpoint:
        """The checkpoint that the adapter was trained on."""
        return self._base

    @property
    def changes(self) -> Mapping[str, Change]:
        """The tensors that the adapter changes, by their names."""
        return self._changes

    @property
    def tokenizer_folder(self) -> Path:
        """The adapter's folder where it has a tokenizer, and else its base's."""
        folder = self._adapter.folder
        return folder if (folder / TOKENIZER).exists() else self.base.tokenizer_folder

    @cached_property
    def is_tied(self) -> bool:
        """True where the output head is the embeddings, with the adapter as without it."""
        return self.base.is_tied and not self._adapter.unties

    def untie(self) -> None:
        """Take the embeddings, as the adapter makes them, for the output head as well."""
        if self.head not in self.specs and (embeddings := self.embeddings) is not None:
            self.base.untie()
            self.specs[self.head] = self.specs[embeddings]
            if embeddings in self._changes:
                self._changes[self.head] = self._changes[embeddings]

    def read(self, name: str) -> Tensor:
        """Give a tensor: float32 where the adapter changes it, else as the base stores it.

        What the adapter adds to is not rounded back to the base's dtype. It is computed anew each
        time, on the CPU, for the same bits wherever it goes; any number of threads may read.
        """
        change = self.changes.get(name)
        return self.base.read(name) if change is None else change.value(self.base)

    def release(self, name: str) -> None:
        """Let go of the memory that reading a tensor of the base took."""
        change = self.changes.get(name)
        start = name if change is None else change.start
        if isinstance(start, str):
            self.base.release(start)

    def sample(self) -> str:
        """Hash a few entries of each tensor that the base and the adapter store."""
        return f"{self.base.sample()}+{self._adapter.sample()}"

    def release_all(self) -> None:
        """Let go of the memory that reading the base took so far."""
        self.base.release_all()

    def _spec(self, name: str) -> TensorSpec:
        """Describe a changed tensor: in the dtype of its base, whatever the adapter's is."""
        change = self.changes[name]
        return replace(self.base.specs[change.replaces], shape=change.shape)

    def _adapted_config(self) -> dict[str, Any]:
        config = dict(self.base.config)
        if self._adapter.n_rows != n_rows(self.base):
            config = with_vocab_size(config, self._adapter.n_rows)
        if self._adapter.unties:
            config = untied(config)
        return config
