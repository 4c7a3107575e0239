"""Inner products of the inputs; angles and norms follow for any weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.executor import BLOCK
from mergesearch.methods.formula import ByRow, Formula, numbers
from mergesearch.methods.inputs import Inputs


def gram(inputs: Inputs) -> Tensor:
    """<X_i, X_j> of the models, or deltas from a base, as wholes: float64 (n, n)."""
    return inputs.recall(
        "gram", lambda: _square(inputs.sums(_PRODUCTS, torch.float64), len(inputs.models))
    )


def gram_of_rows(inputs: Inputs) -> Tensor:
    """<X_i, X_j> row by row, float64 (rows, n, n)."""
    n = len(inputs.models)

    def compute() -> Tensor:
        parts = [value.sum(-1, dtype=torch.float64) for _, value in inputs.values(_PRODUCTS)]
        return _square(torch.cat(parts, dim=-1), n)

    return inputs.recall("gram of rows", compute)


def gram_of_columns(inputs: Inputs) -> Tensor:
    """<X_i, X_j> column by column, float64 (columns, n, n)."""
    n = len(inputs.models)

    def compute() -> Tensor:
        # always the same blocks, since the order of the sum goes by them
        values = inputs.values(_PRODUCTS, block=BLOCK)
        parts = [value.sum(1, dtype=torch.float64) for _, value in values]
        return _square(torch.stack(parts).sum(0), n)

    return inputs.recall("gram of columns", compute)


def products(base: Tensor | None, models: Sequence[Tensor]) -> Tensor:
    """X_i X_j, entry by entry, for i <= j: float64 (n (n + 1) / 2, rows, columns).

    Products of float32 are exact in float64, so that parallel vectors have a cosine of one.
    """
    deltas = models if base is None else [model - base for model in models]
    xs = [delta.double() for delta in deltas]
    return torch.stack([x * y for i, x in enumerate(xs) for y in xs[i:]])


_PRODUCTS = Formula(products)


def span_of(inputs: Inputs, coefficients: Sequence[float] | Sequence[Tensor]) -> dict[str, Tensor]:
    """Constants of `combine.span` for one coefficient a model."""
    return {"coefficient": _kept(numbers(coefficients, inputs)).view(1, -1, 1)}


def span_by_row(inputs: Inputs, coefficients: Tensor) -> dict[str, ByRow]:
    """Constants of `combine.span` for coefficients (rows, n) that differ by row."""
    return {"coefficient": ByRow(_kept(coefficients).to(inputs.device).unsqueeze(-1))}


def span_by_column(inputs: Inputs, coefficients: Tensor) -> dict[str, Tensor]:
    """Constants of `combine.span` for coefficients (columns, n) that differ by column."""
    return {"coefficient": _kept(coefficients).to(inputs.device).T.unsqueeze(0)}


def arc(t: float, cosine: Tensor, straight: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of an arc's ends at t: sin((1-t)a)/sin(a) and sin(ta)/sin(a).

    Shoemake's slerp (doi:10.1145/325334.325242).

    Args:
        t: the position.
        cosine: float64, of any shape.
        straight: where to interpolate linearly instead, as the ends are (anti)parallel.
    """
    angle = torch.acos(torch.where(straight, 0.0, cosine.clamp(-1, 1)))
    toward_first = torch.sin((1 - t) * angle) / torch.sin(angle)
    toward_second = torch.sin(t * angle) / torch.sin(angle)
    return torch.where(straight, 1 - t, toward_first), torch.where(straight, t, toward_second)


def _kept(coefficients: Tensor) -> Tensor:
    """Round to float32, unless a derivative is to be taken of them."""
    return coefficients if coefficients.requires_grad else coefficients.float()


def norm(square: float) -> float:
    """Norm of a vector from its square, which rounding may have made negative."""
    return 0.0 if square < 0 else math.sqrt(square)


def _square(values: Tensor, n: int) -> Tensor:
    """Symmetric (*S, n, n) of an upper triangle (n (n + 1) / 2, *S)."""
    values = values.cpu().movedim(0, -1)
    full = torch.zeros(*values.shape[:-1], n, n, dtype=torch.float64)
    upper, lower = torch.triu_indices(n, n)
    full[..., upper, lower] = values
    full[..., lower, upper] = values
    return full
