"""One parent's tensor, as it is or scaled."""

from collections.abc import Sequence

from torch import Tensor


def passthrough(models: Sequence[Tensor], *, scale: Sequence[float | None]) -> Tensor:
    """Copy the one model's tensor, times its scale where one is given.

    Args:
        models: one float32 tensor of shape S.
        scale: one float, or None for a plain copy.

    Returns:
        float32 tensor of shape S; never the input itself.
    """
    (model,), (factor,) = models, scale
    return model.clone() if factor is None else model * factor
