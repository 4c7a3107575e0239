"""NuSLERP: slerp of two models or task vectors, as a whole or by row or column."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.combine import span
from mergesearch.methods.formula import Formula
from mergesearch.methods.gram import (
    arc,
    gram,
    gram_of_columns,
    gram_of_rows,
    span_by_column,
    span_by_row,
    span_of,
)
from mergesearch.methods.inputs import Inputs


def nuslerp(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    nuslerp_row_wise: bool = False,
    nuslerp_flatten: bool = True,
) -> Formula:
    """Weighted spherical interpolation of two models; with a base, of task vectors.

    The second model counts by t = w_2 / (w_1 + w_2), or 0.5 where the sum is near zero. Vectors
    that are parallel to within float32 are interpolated linearly. (mergekit's method.)

    Args:
        inputs: two models, and a base or none.
        weight: two floats.
        nuslerp_flatten: take the tensor as one vector.
        nuslerp_row_wise: if not flattened, each column is a vector of its own where this is set,
            and each row where it is not (mergekit's reading of its name).
    """
    total = sum(weight)
    t = 0.5 if abs(total) < 1e-6 else weight[1] / total
    if nuslerp_flatten or inputs.n_dims < 2:
        return Formula(span, span_of(inputs, list(_ends(gram(inputs), t))), heavy=True)
    if nuslerp_row_wise:
        return Formula(span, span_by_column(inputs, _ends(gram_of_columns(inputs), t)), heavy=True)
    return Formula(span, span_by_row(inputs, _ends(gram_of_rows(inputs), t)), heavy=True)


def _ends(products: Tensor, t: float) -> Tensor:
    """Coefficients of two vectors at t: float64 (..., 2) from products (..., 2, 2)."""
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt().clamp(min=1e-7)
    cosine = (products[..., 0, 1] / norms.prod(-1)).clamp(-1, 1)
    # a cosine that float32 rounds to one
    straight = 1 - cosine.square() <= 2.0**-24
    return torch.stack(arc(t, cosine, straight), dim=-1)
