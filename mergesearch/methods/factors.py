"""Task vectors of low rank: their factors, and the small space that holds all."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """A task vector as LoRA trains it (arXiv:2106.09685): W_i - W0 = b @ a."""

    #: (rows, rank), float32.
    b: Tensor
    #: (rank, columns), float32.
    a: Tensor

    @property
    def T(self) -> "Factors":
        """The factors of the transposed task vector."""
        return Factors(self.a.T, self.b.T)


@dataclass(frozen=True)
class CoreSpace:
    """Core Space (arXiv:2509.17786): W_i - W0 = left @ cores[i] @ right.T.

    Nothing is lost. The bases are the left singular vectors of all b side by side, and the right
    ones of all a below each other, so that they depend on no order of the models. All is float64.

    >>> import torch
    >>> from mergesearch.methods.factors import CoreSpace, Factors
    >>> one = Factors(torch.tensor([[3.0], [4.0]]), torch.tensor([[0.0, 2.0, 0.0]]))
    >>> space = CoreSpace.of([one])
    >>> space.cores[0].shape, space.outside(space.cores[0])
    (torch.Size([1, 1]), tensor([[0., 6., 0.],
            [0., 8., 0.]]))
    """

    #: (rows, p), its columns orthonormal; p is the sum of the ranks, but no more than the rows.
    left: Tensor
    #: (columns, q), likewise.
    right: Tensor
    #: n matrices of shape (p, q).
    cores: tuple[Tensor, ...]

    @classmethod
    def of(cls, factors: Sequence[Factors]) -> "CoreSpace":
        """Find the bases of some task vectors, one or more, and their coordinates there."""
        left = _basis(torch.cat([part.b.double() for part in factors], dim=1))
        right = _basis(torch.cat([part.a.double() for part in factors]).T)
        cores = ((left.T @ f.b.double()) @ (f.a.double() @ right) for f in factors)
        return cls(left, right, tuple(cores))

    def outside(self, core: Tensor) -> Tensor:
        """Take coordinates, (p, q), back to the whole: float32 (rows, columns)."""
        return (self.left @ core.double()).float() @ self.right.float().T


def factorised(delta: Tensor) -> Factors:
    """Factorise a task vector that was not trained as a product, by its SVD."""
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    root = values.sqrt()
    return Factors(left * root, root[:, None] * right)


def _basis(columns: Tensor) -> Tensor:
    """Left singular vectors, (rows, min of both): zero values have some as well."""
    # by QR, since there are few columns
    tall, small = torch.linalg.qr(columns)
    return tall @ torch.linalg.svd(small, full_matrices=False).U
