"""Arcee Fusion: take from the other model what matters most."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs


def arcee_fusion(inputs: Inputs) -> Formula:
    """W_1 where its importance is at least median + 1.5 (q3 - q1), and W0 elsewhere.

    An entry's importance is its change times the divergence KL(softmax(W_1) || softmax(W0)) of
    its row. (mergekit's method, which samples the quartiles of tensors above 10^6 entries; here
    they are exact.)

    Args:
        inputs: the base and one model.
    """
    threshold = inputs.recall("threshold of importance", lambda: _threshold(inputs))
    return Formula(take_important, {"threshold": numbers(threshold, inputs)})


def importance(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """|W_1 - W0| times the divergence of the row, float32 (rows, columns)."""
    (model,) = models
    p, q = torch.softmax(model, dim=-1) + 1e-8, torch.softmax(base, dim=-1) + 1e-8
    divergence = (p * torch.log(p / q)).sum(dim=-1, keepdim=True)
    return (model - base).abs() * divergence


def take_important(base: Tensor, models: Sequence[Tensor], *, threshold: Tensor) -> Tensor:
    """W_1 where its importance reaches the threshold, W0 elsewhere."""
    mask = importance(base, models) >= threshold
    return base + (models[0] - base) * mask.float()


def _threshold(inputs: Inputs) -> float:
    values = torch.cat([v.flatten() for _, v in inputs.values(Formula(importance))])
    # of n sorted values, the one at int(q (n - 1))
    indices = [int(q * (len(values) - 1)) for q in (0.25, 0.5, 0.75)]
    q1, median, q3 = (torch.kthvalue(values, index + 1).values for index in indices)
    return float(median + 1.5 * (q3 - q1))
