"""Deltas of one tensor side by side: norms, angles, signs, ranks, subspaces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from mergesearch.methods.factors import Factors
from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.gram import gram
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import delta_cuts

#: The part of a delta's entries that count as large: what TIES keeps (arXiv:2306.01708).
LARGE = 0.2


@dataclass(frozen=True)
class TensorNumbers:
    """Numbers on the deltas of n models in one tensor, all float64."""

    #: The squared norm of the base's tensor.
    base: float
    #: <D_i, D_j>, (n, n).
    products: Tensor
    #: Entries that are large in two deltas, and those of them with opposite signs: (n, n).
    shared: Tensor
    opposite: Tensor
    #: ||D_i D_jᵀ||², (n, n): zero where two read from subspaces that are orthogonal; None of a
    #: vector.
    spectral: Tensor | None
    #: Inputs that its rows respond to.
    n_inputs: int


def compare_tensor(inputs: Inputs) -> TensorNumbers:
    """Compare the deltas of some models in one tensor.

    Memory beside the inputs is that of blocks, and of squares of the shorter side.

    Args:
        inputs: the base's tensor and those of n models; deltas of low rank are compared by their
            factors, which is cheaper.
    """
    assert inputs.base is not None
    shared, opposite = _signs(inputs)
    spectral = None
    if inputs.n_dims > 1:
        spectral = _of_factors(inputs.factors) if inputs.factors else _of_deltas(inputs)
    n_inputs = inputs.shape[1]
    return TensorNumbers(square_of(inputs.base), gram(inputs), shared, opposite, spectral, n_inputs)


def square_of(tensor: Tensor) -> float:
    """Compute the squared norm of a tensor as it is stored, block by block."""
    return float(gram(Inputs.of(None, [tensor])))


def _signs(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Count entries that are large in both of two deltas, and opposite ones."""
    n = len(inputs.models)
    shared, opposite = torch.zeros(2, n, n, dtype=torch.float64)
    if n < 2:
        return shared, opposite
    kept = max(1, int(LARGE * inputs.n_entries))
    cuts = [delta_cuts(inputs, i, kept)[0].threshold for i in range(n)]
    formula = Formula(_sign_counts, {"threshold": numbers(cuts, inputs)})
    # ones in float32 are counted exactly as far as a row has fewer than 2^24
    counts = inputs.sums(formula, torch.float64).view(-1, 2)
    for (i, j), (both, against) in zip(combinations(range(n), 2), counts, strict=True):
        shared[i, j] = shared[j, i] = both
        opposite[i, j] = opposite[j, i] = against
    return shared, opposite


def _sign_counts(base: Tensor, models: Sequence[Tensor], *, threshold: Tensor) -> Tensor:
    """Ones where two deltas are large, and where signs differ: (2 pairs, *S)."""
    deltas = [model - base for model in models]
    signs = [
        torch.where(delta.abs() >= least, delta.sign(), 0.0)
        for delta, least in zip(deltas, threshold, strict=True)
    ]
    products = [one * other for one, other in combinations(signs, 2)]
    return torch.stack([part for p in products for part in (p.abs(), (p < 0).float())])


def _of_factors(factors: Sequence[Factors]) -> Tensor:
    """||B_i A_i A_jᵀ B_jᵀ||² = <B_iᵀB_i M, M B_jᵀB_j> with M = A_i A_jᵀ."""
    wide = [(part.a.double(), part.b.double()) for part in factors]

    def one(i: int, j: int) -> Tensor:
        (a, b), (a_, b_) = wide[i], wide[j]
        crossed = a @ a_.T
        return ((b.T @ b) @ crossed * (crossed @ (b_.T @ b_))).sum()

    return _symmetric(len(factors), one)


def _of_deltas(inputs: Inputs) -> Tensor:
    """Compute it of whole deltas, by products over the longer side, block by block."""
    rows, columns = inputs.shape
    n = len(inputs.models)
    scale = numbers(_scales(inputs), inputs)
    deltas = Formula(_scaled, {"scale": scale})
    if rows >= columns:  # tr(G_i G_j) with G = DᵀD
        grams = torch.zeros(n, columns, columns, device=inputs.device)
        for _, block in inputs.values(deltas):
            grams += block.mT @ block
        found = _symmetric(n, lambda i, j: (grams[i] * grams[j]).sum(dtype=torch.float64))
    else:
        pairs = [(i, j) for i in range(n) for j in range(i, n)]
        crossed = {pair: torch.zeros(rows, rows, device=inputs.device) for pair in pairs}
        assert inputs.base is not None
        turned = Inputs.of(inputs.base.T, [model.T for model in inputs.models])
        for _, block in turned.values(deltas):  # (n, some columns, rows)
            for i, j in pairs:
                crossed[i, j] += block[i].T @ block[j]
        found = _symmetric(n, lambda i, j: crossed[i, j].square().sum(dtype=torch.float64))
    back = scale.double().cpu().square()
    return found / (back[:, None] * back[None, :])


def _scaled(base: Tensor, models: Sequence[Tensor], *, scale: Tensor) -> Tensor:
    """Deltas times a number each: (n, *S)."""
    return torch.stack([(m - base) * s for m, s in zip(models, scale, strict=True)])


def _scales(inputs: Inputs) -> list[float]:
    """Numbers that bring deltas to norm one, for the fourth powers in float32."""
    squares = gram(inputs).diagonal()
    return [float(square) ** -0.5 if square > 0 else 1.0 for square in squares]


def _symmetric(n: int, one: Callable[[int, int], Tensor]) -> Tensor:
    found = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(i, n):
            found[i, j] = found[j, i] = one(i, j)
    return found
