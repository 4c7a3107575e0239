"""Sums of task vectors: addition, negation, analogy and extrapolation."""

from collections.abc import Sequence

from torch import Tensor

from mergesearch.methods.combine import add
from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs


def task_arithmetic(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = False,
) -> Formula:
    """Task arithmetic (arXiv:2212.04089): W0 + lambda sum(w_i (W_i - W0)).

    Section 2 of the paper has addition, negation (a negative weight forgets a skill) and analogy:
    W_c + (W_b - W_a), "a is to b as c is to ?". Lambda above 1 goes beyond the merged model (ExPO,
    arXiv:2404.16792).

    Args:
        inputs: the base and n models.
        weight: n floats.
        lambda_: scale of the summed delta.
        normalize: divide the summed delta by the sum of the weights, unless that is near zero.
    """
    total = sum(weight)
    divisor = total if normalize and abs(total) >= 1e-8 else 1.0
    constants = {"weight": numbers(weight, inputs), "scale": numbers(lambda_ / divisor, inputs)}
    return Formula(add_deltas, constants, heavy=True)


def add_deltas(base: Tensor, models: Sequence[Tensor], *, weight: Tensor, scale: Tensor) -> Tensor:
    """W0 + scale sum(w_i (W_i - W0)), with `weight` of shape (n,)."""
    return add(base, [model - base for model in models], weight, scale)
