"""DARE: drop random entries of the task vectors, rescale, then merge."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.sparsify import Rescale, drop
from mergesearch.methods.task_arithmetic import combine
from mergesearch.methods.ties import elect


def dare_linear(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    generators: Sequence[torch.Generator],
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = True,
) -> Tensor:
    """DARE (arXiv:2311.03099) followed by task arithmetic.

    Args:
        base: float32 tensor W0 of shape S.
        models: n float32 tensors of shape S.
        weight: n floats.
        density: n floats in (0, 1]: the probability of keeping an entry.
        generators: n CPU generators, one for each model's mask.
        lambda_: scale of the merged delta.
        normalize: divide by the sum of the weights.
        rescale: see `sparsify.drop`.

    Returns:
        float32 tensor of shape S.
    """
    deltas = _dropped(base, models, density, rescale, generators)
    return base + lambda_ * combine(deltas, weight, normalize)


def dare_ties(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    generators: Sequence[torch.Generator],
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = True,
) -> Tensor:
    """DARE (arXiv:2311.03099) followed by the sign election of TIES (arXiv:2306.01708).

    Arguments and result as for `dare_linear`.
    """
    deltas = _dropped(base, models, density, rescale, generators)
    return base + lambda_ * elect(deltas, weight, normalize)


def _dropped(
    base: Tensor,
    models: Sequence[Tensor],
    density: Sequence[float],
    rescale: Rescale,
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    return [
        drop(model - base, d, rescale, generator)
        for model, d, generator in zip(models, density, generators, strict=True)
    ]
