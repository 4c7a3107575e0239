"""Weighted sums of models or of their deltas, with or without elected signs."""

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_sum(
    base: None, models: Sequence[Tensor], *, weight: Tensor, divisor: Tensor
) -> Tensor:
    """sum(w_i W_i) / divisor, with `weight` of shape (n,)."""
    return scaled_sum(models, weight).div_(divisor)


def scaled_sum(tensors: Sequence[Tensor], weight: Sequence[float] | Tensor) -> Tensor:
    """sum(w_i X_i), a tensor of its own."""
    total = weight[0] * tensors[0]
    for i, tensor in enumerate(tensors[1:], start=1):
        total.add_(weight[i] * tensor)
    return total


def span(base: Tensor | None, models: Sequence[Tensor], *, coefficient: Tensor) -> Tensor:
    """sum(c_i W_i), or W0 + sum(c_i T_i) where there is a base.

    Args:
        base: (rows, columns), or None.
        models: n tensors of that shape.
        coefficient: (rows or 1, n, columns or 1).
    """
    parts = [
        coefficient[:, i] * model if base is None else (model - base).mul_(coefficient[:, i])
        for i, model in enumerate(models)
    ]
    merged = parts[0]
    for part in parts[1:]:
        merged.add_(part)
    return merged if base is None else merged.add_(base)


def add(base: Tensor, deltas: Sequence[Tensor], weight: Tensor, scale: Tensor) -> Tensor:
    """W0 + scale sum(w_i T_i); the deltas are written over, for the sake of the cache."""
    merged = deltas[0].mul_(weight[0])
    for i, delta in enumerate(deltas[1:], start=1):
        merged.add_(delta.mul_(weight[i]))
    return merged.mul_(scale).add_(base)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Add up tensors of one shape, in their order."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def minority(deltas: Sequence[Tensor]) -> list[Tensor]:
    """Masks of the deltas that are zero or disagree with the sign of their sum.

    A sum of zero is positive. A NaN is in no minority, so that it shows.
    """
    # TIES, Algorithm 1, step 2: gamma = sgn(sum of the trimmed task vectors)
    sign = torch.where(sum_of(deltas) >= 0, 1.0, -1.0)
    return [(delta * sign) <= 0 for delta in deltas]


def elected_sum(deltas: Sequence[Tensor], weight: Tensor, normalize: bool) -> Tensor:
    """Elect and disjoint merge of TIES (arXiv:2306.01708, Algorithm 1, steps 2 and 3).

    The weighted deltas that agree with the elected sign are summed, entry by entry. That sign is
    that of sum(w_i T_i), zero counting as positive; a zero entry agrees with nobody. With
    `normalize` each entry is divided by the sum of the agreeing weights, or by one where that is
    zero.

    Args:
        deltas: n tensors, each times its weight already.
        weight: (n,).
        normalize: divide by the sum of the agreeing weights.
    """
    # step 3: the mean over A^p, the models whose sign is the elected one
    merged, divisor = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for i, (delta, erased) in enumerate(zip(deltas, minority(deltas), strict=True)):
        merged = merged + torch.where(erased, 0.0, delta)
        divisor = divisor + torch.where(erased, 0.0, weight[i])
    if not normalize:
        return merged
    return merged / torch.where(divisor == 0, 1.0, divisor)
