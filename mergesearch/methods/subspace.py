"""Merging task vectors by their singular vectors: TSV-M, Iso-C and Iso-CTS.

All three come to W0 + lambda D, where D does not depend on lambda: it is computed once for a
tensor, and a candidate is one pass. They are for matrices that map one hidden space to another;
vectors, embeddings and output heads take the mean delta for D.

Where the models are LoRA adapters, D is computed in their core space: bases on both sides with
orthonormal columns change no singular value, and turn singular vectors as they turn the matrices.

Singular values that are zero to float32 have no directions of their own, so they are left out:
an adapter of rank 16 has 16 directions, not as many as the matrix has columns. Where nothing is
left out, the formulas are the papers'.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergesearch.methods.combine import sum_of
from mergesearch.methods.factors import CoreSpace
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

    def direction(deltas: Sequence[Tensor], svd: "_Svd") -> Tensor:
        # the paper's rank k: an equal part of the directions for each of T tasks
        kept = max(1, svd.n_directions // len(deltas))
        left, values, right = _beside([svd(delta, kept) for delta in deltas])
        # low-rank approximations side by side, then Procrustes on both sides
        return (svd.orthogonal(left) * values) @ svd.orthogonal(right).T

    return _along("tsv_m", inputs, direction, lambda_)


def iso_c(inputs: Inputs, *, lambda_: float = 1.0) -> Formula:
    """Isotropic merging in the common subspace, Iso-C (arXiv:2502.04959, section 4).

    D is the sum of the task vectors with every singular value replaced by their mean.

    Args:
        inputs: the base and n models.
        lambda_: scale of D (the paper's alpha).
    """

    def direction(deltas: Sequence[Tensor], svd: "_Svd") -> Tensor:
        return _flat(*svd(sum_of(deltas)))

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

    def direction(deltas: Sequence[Tensor], svd: "_Svd") -> Tensor:
        n_common = max(1, int(common * svd.n_directions))
        # the common subspace: of the task arithmetic sum
        left, values, right = svd(sum_of(deltas), n_common)
        own = (svd.n_directions - n_common) // len(deltas)
        # the task-specific ones, orthogonal to it
        parts = [svd.beyond(left, values, delta, own) for delta in deltas if own]
        if not parts:
            return _flat(left, values, right)
        own_left, own_values, own_right = _beside(parts)
        values = torch.cat([values, own_values])
        left = svd.orthogonal_beside(left, own_left)
        return _flat(left, values, svd.orthogonal_beside(right, own_right))

    return _along(f"iso_cts {common}", inputs, direction, lambda_)


def add_direction(
    base: Tensor, models: Sequence[Tensor], *, direction: Tensor, scale: Tensor
) -> Tensor:
    """W0 + scale D."""
    return base + scale * direction


def mean_direction(inputs: Inputs, scale: float) -> Formula:
    """W0 + scale D, with the mean delta for D."""
    n = len(inputs.models)
    # n deltas of the weight 1 / n
    constants = {"weight": numbers([1.0] * n, inputs), "scale": numbers(scale / n, inputs)}
    return Formula(add_deltas, constants)


def task_vectors(inputs: Inputs) -> list[Tensor]:
    """W_i - W0, float32 (rows, columns): on the CPU, for the same bits everywhere."""
    assert inputs.base is not None
    base = inputs.base.float().cpu()
    return [model.float().cpu() - base for model in inputs.models]


def finite_task_vectors(inputs: Inputs) -> list[Tensor] | None:
    """Give the task vectors; None where an entry is not finite.

    A matrix with NaN has no singular values, and says so by an error of its own.
    """
    deltas = task_vectors(inputs)
    return deltas if bool(torch.isfinite(sum_of(deltas)).all()) else None


def not_finite(inputs: Inputs) -> Tensor:
    """Make a direction that shows that there is none."""
    return torch.full(inputs.shape, torch.nan, device=inputs.device)


def _along(
    name: str,
    inputs: Inputs,
    direction: Callable[[Sequence[Tensor], "_Svd"], Tensor],
    scale: float,
) -> Formula:
    if not inputs.is_matrix or not inputs.n_entries:
        return mean_direction(inputs, scale)

    def compute() -> Tensor:
        svd = _Svd(*inputs.shape)
        if (factors := inputs.factors) is not None:
            space = CoreSpace.of(factors)
            return space.outside(direction(space.cores, svd)).to(inputs.device)
        deltas = finite_task_vectors(inputs)
        return not_finite(inputs) if deltas is None else direction(deltas, svd).to(inputs.device)

    constants = {"direction": ByRow(inputs.recall(name, compute)), "scale": numbers(scale, inputs)}
    return Formula(add_direction, constants, of_base=True)


#: Left singular vectors (rows, r), singular values (r,) and right singular vectors (columns, r).
_Directions = tuple[Tensor, Tensor, Tensor]


def _flat(left: Tensor, values: Tensor, right: Tensor) -> Tensor:
    """Sum up directions, each with the mean of the singular values."""
    return (values.mean() if len(values) else 0.0) * (left @ right.T)


def _beside(parts: Sequence[_Directions]) -> _Directions:
    """Directions of several matrices side by side."""
    left, values, right = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
    return left, values, right


@dataclass(frozen=True)
class _Svd:
    """Singular value decompositions of task vectors, or of their cores.

    They are those of the smaller Gram matrix in float64, in half the time of the matrix's own in
    float32 and no less exact.
    """

    #: Of the whole task vectors.
    rows: int
    columns: int

    @property
    def n_directions(self) -> int:
        """The most directions that a task vector can have."""
        return min(self.rows, self.columns)

    def __call__(
        self, matrix: Tensor, most: int | None = None, *, beside: float = 0.0
    ) -> _Directions:
        """Find the strongest singular directions, but none of zero.

        A value is zero where it is lost in the rounding of the largest, or of the value `beside`.
        """
        if matrix.shape[0] < matrix.shape[1]:
            right, values, left = self(matrix.T, most, beside=beside)
            return left, values, right
        wide = matrix.double()
        squares, vectors = torch.linalg.eigh(wide.T @ wide)
        values = squares.clamp(min=0).sqrt().flip(0)
        # numpy's rule for the rank of a matrix of float32
        smallest = max(self.rows, self.columns) * torch.finfo(torch.float32).eps
        rank = int((values > values[:1].clamp(min=beside) * smallest).sum())
        kept = rank if most is None else min(rank, most)
        values, right = (part[..., :kept].to(matrix.dtype) for part in (values, vectors.flip(1)))
        return matrix @ right / values, values, right

    def beyond(self, common: Tensor, values: Tensor, delta: Tensor, most: int) -> _Directions:
        """Find the strongest directions of a task vector orthogonal to common columns.

        What is left of one without directions of its own is rounding, beside the common `values`.
        """
        largest = float(values[0]) if len(values) else 0.0
        if delta.shape[0] > delta.shape[1]:
            return self(delta - common @ (common.T @ delta), most, beside=largest)
        # few rows are left, so that coordinates in what is orthogonal are smaller
        rest = torch.linalg.qr(common, mode="complete").Q[:, common.shape[1] :]
        left, values, right = self(rest.T @ delta, most, beside=largest)
        return rest @ left, values, right

    def orthogonal_beside(self, common: Tensor, own: Tensor) -> Tensor:
        """Compute `orthogonal` of both side by side, the common columns orthonormal.

        Only the part of their space that the others reach into is turned.
        """
        turned = torch.linalg.qr(common.T @ own).Q
        reached = common @ turned
        nearest = self.orthogonal(torch.cat([reached, own], dim=1))
        n = reached.shape[1]
        return torch.cat([common + (nearest[:, :n] - reached) @ turned.T, nearest[:, n:]], dim=1)

    def orthogonal(self, columns: Tensor) -> Tensor:
        """Nearest matrix with orthonormal columns (Procrustes): U S Vᵀ becomes U Vᵀ.

        Columns that depend on each other share the directions they have, and get no new ones.
        """
        left, _, right = self(columns)
        return left @ right.T
