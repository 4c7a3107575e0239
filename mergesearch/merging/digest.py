"""The hash of a model's tensors, by which a candidate is known again."""

from collections.abc import Sequence

import torch
import xxhash
from torch import Tensor

#: Entries that are widened at a time.
_BLOCK = 1 << 20


class TensorDigest:
    """The hash of one tensor, which comes block by block in order.

    XXH3 with 128 bits, over the name, the dtype, the shape and the values as float32: it tells
    models apart at the speed of memory, and is no protection against forgery.
    """

    def __init__(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self._hash = xxhash.xxh3_128(f"{name} {dtype} {list(shape)}\n".encode())

    def update(self, values: Tensor) -> None:
        """Take the next entries into account."""
        for block in values.detach().reshape(-1).split(_BLOCK):
            wide = block.float().cpu().contiguous()
            self._hash.update(wide.view(torch.uint8).numpy().data)

    def hexdigest(self) -> str:
        """Return the hash of all entries so far."""
        return self._hash.hexdigest()


class Digest:
    """The hash of a model: over its tensors' hashes, in whatever order they come."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor into account."""
        digest = TensorDigest(name, tensor.dtype, tensor.shape)
        digest.update(tensor)
        self.put(name, digest.hexdigest())

    def put(self, name: str, part: str) -> None:
        """Take a tensor into account by its own hash."""
        self._parts[name] = part

    def hexdigest(self) -> str:
        """Return the hash of all tensors so far."""
        lines = "\n".join(f"{name} {part}" for name, part in sorted(self._parts.items()))
        return xxhash.xxh3_128(lines.encode()).hexdigest()
