"""One parent's tensor, as it is or scaled."""

from collections.abc import Sequence

from torch import Tensor

from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs


def passthrough(inputs: Inputs, *, scale: Sequence[float | None]) -> Formula:
    """Copy the one model's tensor, times its scale where one is given.

    Args:
        inputs: one model.
        scale: one number, or None for a plain copy.
    """
    (factor,) = scale
    constants = {} if factor is None else {"factor": numbers([factor], inputs)}
    return Formula(scaled, constants)


def scaled(base: None, models: Sequence[Tensor], *, factor: Tensor | None = None) -> Tensor:
    """W_1, or W_1 times a factor of shape (1,)."""
    (model,) = models
    return model if factor is None else model * factor
