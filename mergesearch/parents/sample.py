"""A sample of stored tensors, by which another training of a model is told."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from mergesearch.parents.mapping import Entry

#: Entries that are taken of a tensor in each of three places.
_RUN = 16


class Stored(Protocol):
    """Tensors of one file, or of none."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Describe each tensor."""

    def tensor(self, name: str) -> Tensor:
        """Give a tensor as stored."""

    def release(self, name: str) -> None:
        """Let go of what a tensor took."""


def sample(files: Iterable[Stored]) -> str:
    """Hash names, shapes, and a few entries of each tensor, from three places.

    Training changes every tensor nearly everywhere, so that reading some pages of each tells two
    trainings apart, in milliseconds and whatever the size. It is no checksum of a file.
    """
    digest = hashlib.sha256()
    for file in files:
        for name, entry in sorted(file.entries.items()):
            digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
            flat = file.tensor(name).reshape(-1)
            middle = len(flat) // 2
            for run in (flat[:_RUN], flat[middle : middle + _RUN], flat[-_RUN:]):
                digest.update(run.clone().view(torch.uint8).numpy().tobytes())
            file.release(name)
    return digest.hexdigest()[:16]
