"""PCB-Merging: entries compete within and between tasks, and the weak are dropped."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods.combine import sum_of
from mergesearch.methods.formula import Formula, numbers, plain
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import among, cut_constants, cuts, tabulate


def pcb(inputs: Inputs, *, density: Sequence[float], lambda_: float = 1.0) -> Formula:
    """Parameter Competition Balancing (arXiv:2410.02396, section 3), by tensor.

    Intra-balancing is softmax(n norm(T_i T_i)), inter-balancing the sum over all j of
    softmax(norm(T_i T_j)), each over the entries, where norm brings the smallest to 0 and the
    largest to 1. Of their product b_i the largest entries are kept, and what is kept are the
    weights of a mean: W0 + lambda sum(b_i T_i) / sum(b_i).

    Args:
        inputs: the base and n models.
        density: n floats in (0, 1]: the fraction of entries that is kept; the paper's r.
        lambda_: scale of the merged delta; the paper's lambda_i, one for all.
    """
    norms = inputs.recall("norms of products", lambda: _norms(inputs))
    kept = [_cut(inputs, norms, i, d) for i, d in enumerate(density)]
    constants = {**norms, **cut_constants(kept, inputs), "scale": numbers(lambda_, inputs)}
    return Formula(compete, constants, indexed=True)


def products(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """T_i T_j, entry by entry, for i <= j: (n (n + 1) / 2, *S)."""
    deltas = [model - base for model in models]
    return torch.stack([x * y for i, x in enumerate(deltas) for y in deltas[i:]])


def exponential(
    deltas: Sequence[Tensor], i: int, j: int, low: Tensor, span: Tensor, times: int = 1
) -> Tensor:
    """Numerator of a softmax: exp(times norm(T_i T_j)).

    Args:
        deltas: n task vectors of any shape S.
        i: a task.
        j: another, or the same.
        low: the smallest product of each pair i <= j, (n (n + 1) / 2,).
        span: the largest less the smallest.
        times: the factor; n within a task.
    """
    i, j = sorted((i, j))
    at = i * len(deltas) - i * (i - 1) // 2 + j - i  # pairs i <= j, row by row
    return torch.exp(times * ((deltas[i] * deltas[j] - low[at]) / span[at]))


def exponentials(deltas: Sequence[Tensor], low: Tensor, span: Tensor) -> list[list[Tensor]]:
    """Compute exp(norm(T_i T_j)) for each i and j, that of a pair once."""
    n = len(deltas)
    pairs = {(i, j): exponential(deltas, i, j, low, span) for i in range(n) for j in range(i, n)}
    return [[pairs[min(i, j), max(i, j)] for j in range(n)] for i in range(n)]


def balance(
    deltas: Sequence[Tensor],
    i: int,
    crossed: Sequence[Tensor],
    *,
    low: Tensor,
    span: Tensor,
    intra: Tensor,
    inter: Tensor,
) -> Tensor:
    """b_i, times the square of the number of entries, of shape S.

    Args:
        deltas: n task vectors of any shape S.
        i: of which it is.
        crossed: exp(norm(T_i T_j)) for each j.
        low: as for `exponential`.
        span: likewise.
        intra: means of the softmaxes' numerators within tasks, (n,).
        inter: between tasks, (n, n).
    """
    own = exponential(deltas, i, i, low, span, times=len(deltas)) / intra[i]
    return own * sum_of([of_pair / inter[i, j] for j, of_pair in enumerate(crossed)])


def compete(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    first: Tensor,
    threshold: Tensor,
    last: Tensor,
    scale: Tensor,
    **norms: Tensor,
) -> Tensor:
    """W0 and the mean of the task vectors, weighted by what is kept of their balances."""
    deltas = [model - base for model in models]
    crossed = exponentials(deltas, norms["low"], norms["span"])
    merged, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for i, delta in enumerate(deltas):
        balance_i = balance(deltas, i, crossed[i], **norms)
        weight = torch.where(among(balance_i, threshold[i], last[i], first), balance_i, 0.0)
        merged = merged + weight * delta
        divisor = divisor + weight
    return base + scale * (merged / torch.where(divisor == 0, 1.0, divisor))


def _norms(inputs: Inputs) -> dict[str, Tensor]:
    """Find the constants of `balance`, which follow from all entries."""
    found = [
        (value.flatten(1).amin(1), value.flatten(1).amax(1))
        for _, value in inputs.values(Formula(products))
    ]
    lows, highs = (torch.stack(part) for part in zip(*found, strict=True))
    low, span = lows.amin(0), highs.amax(0) - lows.amin(0)
    ranges = {"low": low, "span": torch.where(span == 0, 1.0, span)}
    n = len(inputs.models)
    means = (inputs.sums(Formula(_stacked, ranges)) / inputs.n_entries).float().to(low.device)
    return {**ranges, "intra": means[:n], "inter": means[n:].view(n, n)}


def _stacked(base: Tensor, models: Sequence[Tensor], *, low: Tensor, span: Tensor) -> Tensor:
    """Every exponential, (n + n n, rows, columns)."""
    deltas, n = [model - base for model in models], len(models)
    own = [exponential(deltas, i, i, low, span, times=n) for i in range(n)]
    crossed = exponentials(deltas, low, span)
    return torch.stack([*own, *(of_pair for row in crossed for of_pair in row)])


def _cut(inputs: Inputs, norms: Mapping[str, Tensor], i: int, density: float) -> Any:
    """Cut below the largest balances of a model."""
    # called as it stands: constants that are bound would be compiled in, tensor by tensor
    as_it_is = replace(inputs, executor=replace(inputs.executor, call=plain))
    magnitude = Formula(partial(_balance_of, i=i, norms=norms))
    kept = max(1, int(density * inputs.n_entries))
    histogram = inputs.recall(f"balances {i}", lambda: tabulate(as_it_is, magnitude))
    return cuts(as_it_is, magnitude, histogram, [kept])[0]


def _balance_of(
    base: Tensor, models: Sequence[Tensor], *, i: int, norms: Mapping[str, Tensor]
) -> Tensor:
    deltas, low, span = [model - base for model in models], norms["low"], norms["span"]
    crossed = [exponential(deltas, i, j, low, span) for j in range(len(deltas))]
    return balance(deltas, i, crossed, **norms)
