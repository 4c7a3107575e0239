"""MagMax: of each entry the largest change of any model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import entrywise


@entrywise
def magmax(base: Tensor, models: Sequence[Tensor], *, lambda_: Tensor) -> Tensor:
    """MagMax (arXiv:2407.06322): W0 + lambda T, T the deltas of largest magnitude.

    Of each entry T has the delta of largest magnitude, among equals that of the first model.

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
