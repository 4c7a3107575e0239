"""MagMax: at each place the largest change of any model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.inputs import entrywise


@entrywise
def magmax(base: Tensor, models: Sequence[Tensor], *, lambda_: Tensor) -> Tensor:
    """MagMax (arXiv:2407.06322): W0 + lambda T, of each entry the delta of largest magnitude.

    Among equal magnitudes that of the first model counts.

    Args:
        base: (rows, columns).
        models: n tensors of that shape.
        lambda_: scale of the merged delta.
    """
    largest = models[0] - base
    for model in models[1:]:
        delta = model - base
        larger = (delta.abs() > largest.abs()) | delta.isnan()  # so that a NaN shows
        largest = torch.where(larger, delta, largest)
    return base + lambda_ * largest
