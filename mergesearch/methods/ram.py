"""Reinforced Agent Merging: what one model alone has changed is not watered down."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs


def ram(inputs: Inputs, *, epsilon: float = 1e-5) -> Formula:
    """RAM (arXiv:2601.13572): of each entry the mean of the deltas that are not zero.

    Args:
        inputs: the base and n models.
        epsilon: deltas of at most this magnitude count as zero.
    """
    ones = numbers([1.0] * len(inputs.models), inputs)
    constants = {"epsilon": numbers(epsilon, inputs), "boost": ones}
    return Formula(mean_of_changed, constants, heavy=True)


def ramplus_tl(
    inputs: Inputs, *, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5
) -> Formula:
    """RAM+ by tensor (arXiv:2601.13572): changes of one model alone are scaled up.

    By 1 + r min(shared / unique, alpha), from the numbers of entries of the tensor that the model
    has changed with others and alone.

    Args:
        inputs: the base and n models.
        r: how strongly.
        alpha: the ratio beyond which it no longer rises.
        epsilon: deltas of at most this magnitude count as zero.
    """
    threshold = numbers(epsilon, inputs)
    n = len(inputs.models)
    counts = inputs.sums(Formula(changed, {"epsilon": threshold}, heavy=True))
    ratio = counts[:n] / counts[n:].clamp(min=epsilon)
    boost = 1 + r * ratio.clamp(min=0, max=alpha)
    constants = {"epsilon": threshold, "boost": numbers(boost.tolist(), inputs)}
    return Formula(mean_of_changed, constants, heavy=True)


def mean_of_changed(
    base: Tensor, models: Sequence[Tensor], *, epsilon: Tensor, boost: Tensor
) -> Tensor:
    """W0 and the mean of the deltas above epsilon; a lone one times its boost, (n,)."""
    deltas, masks, count = _changed(base, models, epsilon)
    merged = torch.zeros_like(base)
    for i, (delta, mask) in enumerate(zip(deltas, masks, strict=True)):
        alone = count == 1
        part = torch.where(alone, delta * boost[i], delta / count.clamp(min=1))
        merged = merged + torch.where(mask, part, 0.0)
    return base + merged


def changed(base: Tensor, models: Sequence[Tensor], *, epsilon: Tensor) -> Tensor:
    """Masks of changes that models share, then of lone ones: (2 n, rows, columns)."""
    _, masks, count = _changed(base, models, epsilon)
    shared = [(mask & (count > 1)).float() for mask in masks]
    return torch.stack([*shared, *[(mask & (count == 1)).float() for mask in masks]])


def _changed(
    base: Tensor, models: Sequence[Tensor], epsilon: Tensor
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    deltas = [model - base for model in models]
    masks = [~(delta.abs() <= epsilon) for delta in deltas]  # a NaN is a change, so that it shows
    count = torch.zeros_like(base)
    for mask in masks:
        count = count + mask.float()
    return deltas, masks, count
