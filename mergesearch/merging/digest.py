"""The hash of a model's tensors, by which a candidate is known again."""

import hashlib

import torch
from torch import Tensor


class Digest:
    """SHA-256 over the names, dtypes, shapes and bytes of tensors, in whatever order they come."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor into account."""
        header = f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest = hashlib.sha256(header + b"\n")
        digest.update(data.data)
        self._parts[name] = digest.hexdigest()

    def hexdigest(self) -> str:
        """The hash of all tensors so far."""
        lines = "\n".join(f"{name} {part}" for name, part in sorted(self._parts.items()))
        return hashlib.sha256(lines.encode()).hexdigest()
