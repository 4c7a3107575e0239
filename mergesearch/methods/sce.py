"""SCE: select by variance, calculate weights by energy, erase minority signs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.combine import minority
from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import EVERYTHING, NOTHING, among, cut, cut_constants, tabulate


def sce(inputs: Inputs, *, select_topk: float = 1.0) -> Formula:
    """SCE (arXiv:2408.07990), by tensor.

    Of the entries whose variance among the models is not zero, the fraction `select_topk` of
    largest variance is kept, those of lower index among equals. A model's weight is the mean
    square of what is kept of its task vector, as a part of all models' (equal parts where all are
    near zero). Deltas that disagree with the sign of the sum are erased, and the rest is averaged
    by weight.

    Args:
        inputs: the base and n models.
        select_topk: the fraction, in (0, 1].
    """
    # Select: the entries of largest variance
    chosen = EVERYTHING
    if select_topk < 1:
        kept = int(torch.tensor(_n_varying(inputs)) * select_topk)  # in float32, as mergekit
        chosen = NOTHING
        if kept:
            histogram = inputs.recall("histogram of variances", lambda: tabulate(inputs, _VARIANCE))
            chosen = cut(inputs, _VARIANCE, histogram, kept)
    marks = {k: t[0] for k, t in cut_constants([chosen], inputs).items()}
    # Calculate: weights by the squares of what is selected
    energy = inputs.sums(Formula(kept_squares, marks, indexed=True, heavy=True)) / inputs.n_entries
    total = float(energy.sum())
    n = len(inputs.models)
    weights = (energy / total).tolist() if total >= 1e-6 else [1 / n] * n
    constants = {**marks, "weight": numbers(weights, inputs)}
    return Formula(merge_agreeing, constants, indexed=True, heavy=True)


def variance(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """Variance of the deltas at each entry (over n, not n - 1)."""
    mean = models[0] - base
    squares = mean - mean  # zero, or NaN for what is not finite, so that it shows
    for n, model in enumerate(models[1:], start=2):
        # Welford's recurrence: equal deltas have a variance of zero, and not of their rounding
        delta = model - base
        step = delta - mean
        mean = mean + step / n
        squares = squares + step * (delta - mean)
    return squares / len(models)


def kept_squares(
    base: Tensor, models: Sequence[Tensor], *, first: Tensor, threshold: Tensor, last: Tensor
) -> Tensor:
    """Squares of the selected deltas, and zero elsewhere: (n, rows, columns)."""
    kept = among(variance(base, models), threshold, last, first)
    return torch.stack([torch.where(kept, (m - base) * (m - base), 0.0) for m in models])


def merge_agreeing(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    first: Tensor,
    threshold: Tensor,
    last: Tensor,
    weight: Tensor,
) -> Tensor:
    """W0 and the weighted mean of the selected deltas of the elected sign."""
    kept = among(variance(base, models), threshold, last, first)
    deltas = [torch.where(kept, model - base, 0.0) for model in models]
    # Erase: the minority's signs
    merged, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for i, (delta, erased) in enumerate(zip(deltas, minority(deltas), strict=True)):
        merged = merged + torch.where(erased, 0.0, delta * weight[i])
        divisor = divisor + torch.where(erased, 0.0, weight[i])
    return base + merged / divisor.clamp(min=1e-6)


_VARIANCE = Formula(variance, heavy=True)


def _n_varying(inputs: Inputs) -> int:
    def compute() -> int:
        return int(inputs.sums(Formula(varying, heavy=True))[0])

    return inputs.recall("entries that vary", compute)


def varying(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """One where the models differ in their deltas, zero elsewhere: (1, rows, columns)."""
    return (variance(base, models) != 0).float().unsqueeze(0)
