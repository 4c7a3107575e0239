"""Arcee Fusion: take from the other model what matters most."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mergesearch.methods.formula import ByRow, Formula, numbers
from mergesearch.methods.inputs import Inputs


def arcee_fusion(inputs: Inputs) -> Formula:
    """W_1 where its importance is at least median + 1.5 (q3 - q1), and W0 elsewhere.

    An entry's importance is its change times the divergence KL(softmax(W_1) || softmax(W0)) of
    its row. (mergekit's method, which samples the quartiles of tensors above 10^6 entries; here
    they are exact.)

    Args:
        inputs: the base and one model.
    """
    of_rows = inputs.recall("divergence of rows", lambda: _divergences(inputs))
    constants: dict[str, Any] = {"divergence": ByRow(of_rows)}
    threshold = inputs.recall("threshold of importance", lambda: _threshold(inputs, constants))
    constants["threshold"] = numbers(threshold, inputs)
    return Formula(take_important, constants, heavy=True)


def divergence_of_rows(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """KL(softmax(W_1) || softmax(W0)) of each row, float32 (rows, 1)."""
    p, q = torch.softmax(models[0], dim=-1) + 1e-8, torch.softmax(base, dim=-1) + 1e-8
    return (p * torch.log(p / q)).sum(dim=-1, keepdim=True)


def importance(base: Tensor, models: Sequence[Tensor], *, divergence: Tensor) -> Tensor:
    """|W_1 - W0| times the divergence of the row, float32 (rows, columns)."""
    return (models[0] - base).abs() * divergence


def take_important(
    base: Tensor, models: Sequence[Tensor], *, divergence: Tensor, threshold: Tensor
) -> Tensor:
    """W_1 where its importance reaches the threshold, W0 elsewhere."""
    mask = importance(base, models, divergence=divergence) >= threshold
    return base + (models[0] - base) * mask.float()


def _divergences(inputs: Inputs) -> Tensor:
    return torch.cat([value for _, value in inputs.values(Formula(divergence_of_rows))])


def _threshold(inputs: Inputs, constants: Mapping[str, Any]) -> float:
    formula = Formula(importance, constants, heavy=True)
    parts = [v.flatten().cpu() for _, v in inputs.values(formula)]
    # numpy sorts float32 faster than torch finds one of them; NaN comes last in both
    values = np.sort(torch.cat(parts).numpy())
    # of n sorted values, the one at int(q (n - 1))
    q1, median, q3 = (values[int(q * (len(values) - 1))] for q in (0.25, 0.5, 0.75))
    return float(median + np.float32(1.5) * (q3 - q1))
