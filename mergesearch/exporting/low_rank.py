"""Deltas of matrices as products of low rank, and the error that they make."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: Columns of the random sketch beside the rank that is asked for (arXiv:0909.4061, section 4.3).
_OVERSAMPLING = 16
#: Power iterations of the sketch, so that slowly falling spectra are met as well (algorithm 4.4).
_ITERATIONS = 4


def factors(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Compute the product of a rank that is nearest to a matrix: truncated SVD.

    Where the rank is small beside the matrix, the SVD is a randomized one (arXiv:0909.4061): of a
    matrix of that rank or a lower one it is exact, of others next to the best.

    Args:
        delta: float32 (rows, columns).
        rank: 1 or more.

    Returns:
        B (rows, rank) and A (rank, columns), float32; zeros where the matrix has a lower rank.
    """
    rows, columns = delta.shape
    sketch = rank + _OVERSAMPLING
    if 2 * sketch >= min(rows, columns):
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # torch takes no generator here
            u, s, v = torch.svd_lowrank(delta, q=sketch, niter=_ITERATIONS)
        vh = v.T
    b, a = delta.new_zeros(rows, rank), delta.new_zeros(rank, columns)
    n = min(rank, len(s))
    root = s[:n].sqrt()
    b[:, :n], a[:n] = u[:, :n] * root, root[:, None] * vh[:n]
    return b, a


@dataclass
class Error:
    """The squared Frobenius norms of deltas, and of what is not expressed of them."""

    squared: float = 0.0
    #: By tensor.
    missed: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, delta: Tensor, expressed: Tensor | None = None) -> None:
        """Take one tensor's delta into account, and what stands for it."""
        self.squared += float(delta.double().square().sum())
        rest = delta if expressed is None else delta - expressed
        self.missed[name] = float(rest.double().square().sum())

    @property
    def relative(self) -> float:
        """The norm of all that is missed beside that of the deltas."""
        return math.sqrt(self.share(*self.missed))

    def share(self, *names: str) -> float:
        """Give the part of the deltas' squared norm that is missed in some tensors."""
        return sum(self.missed[name] for name in names) / self.squared if self.squared else 0.0
