"""Sums of task vectors: addition, negation and analogy."""

from collections.abc import Sequence

import torch
from torch import Tensor


def task_arithmetic(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = False,
) -> Tensor:
    """Task arithmetic (arXiv:2212.04089): add weighted task vectors to the base.

    A negative weight forgets a skill; W_c + (W_b - W_a) is the analogy "a is to b as c is to ?".

    Args:
        base: float32 tensor W0 of shape S.
        models: n float32 tensors of shape S.
        weight: n floats.
        lambda_: scale of the summed delta.
        normalize: divide the summed delta by the sum of the weights.

    Returns:
        float32 tensor of shape S: W0 + lambda * sum(w_i (W_i - W0)).
    """
    return base + lambda_ * combine([model - base for model in models], weight, normalize)


def combine(deltas: Sequence[Tensor], weight: Sequence[float], normalize: bool) -> Tensor:
    """sum(w_i T_i), divided by sum(w_i) when `normalize`; a divisor near zero counts as one."""
    delta = torch.zeros_like(deltas[0])
    for task_vector, w in zip(deltas, weight, strict=True):
        delta += w * task_vector
    total = sum(weight)
    return delta / total if normalize and abs(total) >= 1e-8 else delta
