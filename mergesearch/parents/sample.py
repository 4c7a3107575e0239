"""A sample of stored tensors, by which another training of a model is told."""

import hashlib
from collections.abc import Iterable

import torch

from mergesearch.parents.held import HeldTensors
from mergesearch.parents.mapping import MappedFile

#: Entries that are taken of a tensor in each of three places.
_RUN = 16


def sample(files: Iterable[MappedFile | HeldTensors]) -> str:
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
