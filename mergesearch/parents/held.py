"""Tensors in memory that stand in for the weight file of a checkpoint."""

from collections.abc import Mapping

from torch import Tensor

from mergesearch.parents.mapping import DTYPE_NAMES, Entry


class HeldTensors:
    """The tensors of a model made in this process, read as those of a file."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Take a tensor, which must not be written to from then on."""
        self._tensors[name] = tensor

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Describe each tensor; none lies anywhere in a file."""
        return {
            name: Entry(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), 0, 0)
            for name, tensor in self._tensors.items()
        }

    def tensor(self, name: str) -> Tensor:
        """Give a tensor, not to be written to."""
        return self._tensors[name]

    def release(self, name: str) -> None:
        """Keep a tensor: it could not be read again."""

    def release_all(self) -> None:
        """Keep every tensor."""
