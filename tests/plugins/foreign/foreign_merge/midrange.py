"""Its formula."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import entrywise


@entrywise
def midrange(base: Tensor, models: Sequence[Tensor], *, lambda_: Tensor) -> Tensor:
    """W0 + lambda times the middle between the smallest and the largest delta, entry by entry."""
    low = high = models[0] - base
    for model in models[1:]:
        low, high = torch.minimum(low, model - base), torch.maximum(high, model - base)
    return base + lambda_ * (0.5 * low + 0.5 * high)
