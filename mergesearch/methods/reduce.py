"""Sums whose bits do not depend on the number of threads."""

import torch
from torch import Tensor

# torch splits a sum among threads above 32,768 entries, and the split changes the rounding.
_CHUNK = 16_384


def total(x: Tensor) -> Tensor:
    """Sum of all entries, a float64 scalar, chunk by chunk in a fixed order."""
    x = x.flatten()
    while x.numel() > _CHUNK:
        x = torch.stack([chunk.sum(dtype=torch.float64) for chunk in x.split(_CHUNK)])
    return x.sum(dtype=torch.float64)


def along_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Add up the last dimension, each chunk in `dtype` and many in float64.

    A row is cut wherever it is wide, so that its sum is the same alone as among others.
    """
    parts = [chunk.sum(-1, dtype=dtype) for chunk in x.split(_CHUNK, dim=-1)]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0, dtype=torch.float64)
