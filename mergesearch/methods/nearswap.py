"""NearSwap: take the other model's entry where it is near the base's."""

from collections.abc import Sequence

from torch import Tensor

from mergesearch.methods.formula import entrywise


@entrywise
def nearswap(base: Tensor, models: Sequence[Tensor], *, t: Tensor) -> Tensor:
    """NearSwap: w W_1 + (1 - w) W0, with w = t / |W0 - W_1| within [0, 1].

    As mergekit has it.

    Args:
        base: (rows, columns).
        models: one tensor of that shape.
        t: the distance up to which the other model's entry is taken as a whole.
    """
    (model,) = models
    share = (t / (base - model).abs().clamp(min=1e-6)).clamp(min=0, max=1)
    return share * model + (1 - share) * base
