"""The median of deltas."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import entrywise


@entrywise
def median(base: Tensor, models: Sequence[Tensor], *, lambda_: Tensor) -> Tensor:
    """W0 + lambda T, of each entry the median of the models' deltas.

    Args:
        base: (rows, columns), float32.
        models: n tensors of that shape.
        lambda_: scale of the merged delta.
    """
    deltas = torch.stack([model - base for model in models])
    return base + lambda_ * torch.quantile(deltas, 0.5, dim=0)
