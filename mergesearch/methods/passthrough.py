"""One parent's tensor, as it is or scaled."""

from collections.abc import Sequence

from torch import Tensor

from mergesearch.methods.formula import entrywise


@entrywise
def passthrough(base: None, models: Sequence[Tensor], *, scale: Sequence[None] | Tensor) -> Tensor:
    """Copy the one model's tensor, times its scale where one is given.

    Args:
        base: unused.
        models: one float32 tensor of shape (rows, columns).
        scale: one number, or None for a plain copy.
    """
    (model,) = models
    factor = scale[0]
    return model if factor is None else model * factor
