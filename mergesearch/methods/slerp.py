"""Spherical interpolation of two models."""

import math
from collections.abc import Sequence

from torch import Tensor

from mergesearch.methods.reduce import total


def slerp(base: Tensor, models: Sequence[Tensor], *, t: float) -> Tensor:
    """Spherical linear interpolation (Shoemake 1985) between the base and one model.

    The angle is that between the flattened tensors; nearly parallel ones (|cos| > 0.9995) are
    interpolated linearly.

    Args:
        base: float32 tensor of shape S, reached at t = 0.
        models: one float32 tensor of shape S, reached at t = 1.
        t: the position between them.

    Returns:
        float32 tensor of shape S: sin((1-t)a)/sin(a) base + sin(t a)/sin(a) model.
    """
    (model,) = models
    cosine = _cosine(base, model)
    if abs(cosine) > 0.9995:
        return (1 - t) * base + t * model
    angle = math.acos(cosine)
    toward_base = math.sin((1 - t) * angle) / math.sin(angle)
    toward_model = math.sin(t * angle) / math.sin(angle)
    return toward_base * base + toward_model * model


def _cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of the angle between two flattened tensors; norms below 1e-8 count as one."""
    norm_a, norm_b = math.sqrt(total(a.double() ** 2)), math.sqrt(total(b.double() ** 2))
    norms = (norm_a if norm_a > 1e-8 else 1.0) * (norm_b if norm_b > 1e-8 else 1.0)
    return max(-1.0, min(1.0, total(a.double() * b) / norms))
