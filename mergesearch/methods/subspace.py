"""Merging task vectors by their singular vectors: TSV-M, Iso-C and Iso-CTS.

All three come to W0 + lambda D, where D does not depend on lambda: it is computed once for a
tensor, and a candidate is one pass. They are for matrices that map one hidden space to another;
vectors, embeddings and output heads take the mean delta for D.

Singular values that are zero to float32 have no directions of their own, so they are left out:
an adapter of rank 16 has 16 directions, not as many as the matrix has columns. Where nothing is
left out, the formulas are the papers'.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import ByRow, Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.task_arithmetic import add_deltas


def tsv_m(inputs: Inputs, *, lambda_: float = 1.0) -> Formula:
    """Task Singular Vectors Merging (arXiv:2412.00081).

    Of each of the n task vectors the floor(min(rows, columns) / n) strongest singular directions
    are kept; the left ones of all models are made orthogonal to each other, and the right ones,
    by the nearest matrix with orthonormal columns; D is their product with the singular values.

    Args:
        inputs: the base and n models.
        lambda_: scale of D (the paper's alpha).
    """

    def direction(deltas: list[Tensor]) -> Tensor:
        # the paper's rank k: an equal part of the directions for each of T tasks
        kept = max(1, min(deltas[0].shape) // len(deltas))
        parts = [_svd(delta, kept) for delta in deltas]
        left, values, right = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
        # low-rank approximations side by side, then Procrustes on both sides
        return (_orthogonal(left) * values) @ _orthogonal(right).T

    return _along("tsv_m", inputs, direction, lambda_)


def iso_c(inputs: Inputs, *, lambda_: float = 1.0) -> Formula:
    """Isotropic merging in the common subspace, Iso-C (arXiv:2502.04959, section 4).

    D is the sum of the task vectors with every singular value replaced by their mean.

    Args:
        inputs: the base and n models.
        lambda_: scale of D (the paper's alpha).
    """

    def direction(deltas: list[Tensor]) -> Tensor:
        left, values, right = _svd(_sum(deltas))
        return values.mean() * (left @ right.T) if len(values) else torch.zeros_like(deltas[0])

    return _along("iso_c", inputs, direction, lambda_)


def iso_cts(inputs: Inputs, *, lambda_: float = 1.0, common: float = 0.8) -> Formula:
    """Isotropic merging in common and task-specific subspaces, Iso-CTS.

    arXiv:2502.04959, section 4. Of min(rows, columns) directions a fraction is that of the summed
    task vectors, and the rest, in equal parts, comes from what each task vector has beyond those.
    Left and right ones are made orthogonal as in `tsv_m`, and every singular value is replaced by
    the mean of all.

    Args:
        inputs: the base and n models.
        lambda_: scale of D (the paper's alpha).
        common: the fraction of common directions, in (0, 1].
    """

    def direction(deltas: list[Tensor]) -> Tensor:
        n = min(deltas[0].shape)
        n_common = max(1, int(common * n))
        # the common subspace: of the task arithmetic sum
        left, values, right = _svd(_sum(deltas), n_common)
        own = (n - n_common) // len(deltas)
        parts = [(left, values, right)]
        # the task-specific ones, orthogonal to it;
        # what is left of a delta without directions of its own is rounding
        largest = float(values[0]) if len(values) else 0.0
        residuals = [delta - left @ (left.T @ delta) for delta in deltas if own]
        parts += [_svd(residual, own, beside=largest) for residual in residuals]
        left, values, right = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
        if not len(values):
            return torch.zeros_like(deltas[0])
        return values.mean() * (_orthogonal(left) @ _orthogonal(right).T)

    return _along(f"iso_cts {common}", inputs, direction, lambda_)


def add_direction(
    base: Tensor, models: Sequence[Tensor], *, direction: Tensor, scale: Tensor
) -> Tensor:
    """W0 + scale D."""
    return base + scale * direction


def mean_direction(inputs: Inputs, scale: float) -> Formula:
    """W0 + scale D, with the mean delta for D."""
    n = len(inputs.models)
    constants = {"weight": numbers([1.0] * n, inputs), "scale": numbers(scale / n, inputs)}
    return Formula(add_deltas, constants)


def _along(
    name: str, inputs: Inputs, direction: Callable[[list[Tensor]], Tensor], scale: float
) -> Formula:
    if not inputs.is_matrix or not inputs.n_entries:
        return mean_direction(inputs, scale)

    def compute() -> Tensor:
        assert inputs.base is not None
        # on the CPU wherever merges run, for the same bits
        base = inputs.base.float().cpu()
        deltas = [model.float().cpu() - base for model in inputs.models]
        # a matrix with NaN has no singular values, and says so by an error of its own
        if not bool(torch.isfinite(_sum(deltas)).all()):
            return torch.full_like(base, torch.nan).to(inputs.device)
        return direction(deltas).to(inputs.device)

    constants = {"direction": ByRow(inputs.recall(name, compute)), "scale": numbers(scale, inputs)}
    return Formula(add_direction, constants, heavy=True)


def _sum(deltas: Sequence[Tensor]) -> Tensor:
    total = deltas[0]
    for delta in deltas[1:]:
        total = total + delta
    return total


def _svd(
    matrix: Tensor, most: int | None = None, *, beside: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Strongest singular directions, but none of zero: (rows, r), (r,), (columns, r).

    A value is zero where it is lost in the rounding of the largest, or of the value `beside`.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    # numpy's rule for the rank of a matrix
    zero = values[:1].clamp(min=beside) * max(matrix.shape) * torch.finfo(values.dtype).eps
    rank = int((values > zero).sum())
    kept = rank if most is None else min(rank, most)
    return left[:, :kept], values[:kept], right[:kept].T


def _orthogonal(columns: Tensor) -> Tensor:
    """Nearest matrix with orthonormal columns (Procrustes): U S Vᵀ becomes U Vᵀ.

    Columns that depend on each other share the directions they have, and get no new ones.
    """
    left, _, right = _svd(columns)
    return left @ right.T
