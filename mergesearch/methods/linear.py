"""Weighted average of models, and the uniform soup when the weights are equal."""

from collections.abc import Sequence

from mergesearch.methods.combine import weighted_sum
from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs


def linear(inputs: Inputs, *, weight: Sequence[float], normalize: bool = True) -> Formula:
    """Model soup (arXiv:2203.05482): sum(w_i W_i), normalized by sum(w_i).

    Args:
        inputs: n models.
        weight: n floats.
        normalize: divide by the sum of the weights, or leave it.
    """
    divisor = sum(weight) if normalize else 1.0
    constants = {"weight": numbers(weight, inputs), "divisor": numbers(divisor, inputs)}
    return Formula(weighted_sum, constants, heavy=True)
