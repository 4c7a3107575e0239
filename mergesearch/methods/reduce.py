"""Sums whose bits do not depend on the number of threads."""

import torch
from torch import Tensor

# torch splits a sum among threads above 32,768 entries, and the split changes the rounding.
_BLOCK = 16_384


def total(x: Tensor) -> float:
    """The sum of all entries, in float64, block by block in a fixed order."""
    x = x.flatten()
    while x.numel() > _BLOCK:
        x = torch.stack([block.sum(dtype=torch.float64) for block in x.split(_BLOCK)])
    return float(x.sum(dtype=torch.float64))
