"""Weighted average of models, and the uniform soup when the weights are equal."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.errors import RecipeError


def linear(models: Sequence[Tensor], *, weight: Sequence[float], normalize: bool = True) -> Tensor:
    """Model soup (arXiv:2203.05482): the weighted mean of the models.

    Args:
        models: n float32 tensors of one shape S.
        weight: n floats.
        normalize: divide by the sum of the weights.

    Returns:
        float32 tensor of shape S: sum(w_i W_i) / sum(w_i).

    Raises:
        RecipeError: `normalize` with weights that sum to zero.
    """
    total = sum(weight)
    if normalize and total == 0:
        raise RecipeError(
            f"the weights of a normalized linear merge must not sum to zero, got {list(weight)}; "
            "change a weight or set normalize: false"
        )
    merged = torch.zeros_like(models[0])
    for model, w in zip(models, weight, strict=True):
        merged += w * model
    return merged / total if normalize else merged
