"""TIES: trim, elect signs, merge what agrees."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.sparsify import match_l1, trim


def ties(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: bool = False,
) -> Tensor:
    """TIES-Merging (arXiv:2306.01708).

    Args:
        base: float32 tensor W0 of shape S.
        models: n float32 tensors of shape S.
        weight: n floats.
        density: n floats in (0, 1]: the fraction of each task vector that is kept.
        lambda_: scale of the merged delta.
        normalize: divide each entry by the sum of the weights that agree on its sign.
        rescale: scale each trimmed task vector to the L1 norm of the full one.

    Returns:
        float32 tensor of shape S.
    """
    deltas = []
    for model, d in zip(models, density, strict=True):
        full = model - base
        trimmed = trim(full, d)
        deltas.append(match_l1(trimmed, full) if rescale else trimmed)
    return base + lambda_ * elect(deltas, weight, normalize)


def elect(deltas: Sequence[Tensor], weight: Sequence[float], normalize: bool) -> Tensor:
    """Sum the weighted deltas that agree with the elected sign, entry by entry.

    The elected sign is that of sum(w_i T_i), zero counting as positive; a zero entry agrees with
    nobody. With `normalize` each entry is divided by the sum of the agreeing weights, or by one
    where that is zero.
    """
    weighted = [w * delta for delta, w in zip(deltas, weight, strict=True)]
    total = torch.zeros_like(weighted[0])
    for delta in weighted:
        total += delta
    positive = total >= 0
    merged, divisor = torch.zeros_like(total), torch.zeros_like(total)
    for delta, w in zip(weighted, weight, strict=True):
        agrees = torch.where(positive, delta > 0, delta < 0)
        merged += delta * agrees
        divisor += w * agrees
    if not normalize:
        return merged
    return merged / torch.where(divisor == 0, 1.0, divisor)
