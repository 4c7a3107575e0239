"""PCB-Merging: entries compete within and between tasks, and the weak are dropped."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

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


def exponentials(
    base: Tensor, models: Sequence[Tensor], *, low: Tensor, span: Tensor
) -> tuple[Tensor, Tensor]:
    """Numerators of the softmaxes: of each task (n, *S), and of each pair (n, n, *S).

    Args:
        base: of any shape S.
        models: n tensors of that shape.
        low: the smallest product of each pair i <= j.
        span: the largest less the smallest.
    """
    n, by_pair = len(models), products(base, models).movedim(0, -1)
    norm = ((by_pair - low) / span).movedim(-1, 0)
    place = {pair: at for at, pair in enumerate((i, j) for i in range(n) for j in range(i, n))}
    own = torch.stack([torch.exp(n * norm[place[i, i]]) for i in range(n)])
    pair = torch.exp(norm)
    crossed = [pair[place[min(i, j), max(i, j)]] for i in range(n) for j in range(n)]
    return own, torch.stack(crossed).unflatten(0, (n, n))


def balance(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    low: Tensor,
    span: Tensor,
    intra: Tensor,
    inter: Tensor,
) -> Tensor:
    """b_i of each model, times the square of the number of entries: (n, *S)."""
    own, crossed = exponentials(base, models, low=low, span=span)
    n = len(models)
    rows = [
        own[i] / intra[i] * sum(crossed[i, j] / inter[i, j] for j in range(n)) for i in range(n)
    ]
    return torch.stack(rows)


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
    balances = balance(base, models, **norms)
    merged, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for i, model in enumerate(models):
        kept = among(balances[i], threshold[i], last[i], first)
        weight = torch.where(kept, balances[i], 0.0)
        merged = merged + weight * (model - base)
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


def _stacked(base: Tensor, models: Sequence[Tensor], **ranges: Tensor) -> Tensor:
    """Every exponential, (n + n n, rows, columns)."""
    own, crossed = exponentials(base, models, **ranges)
    return torch.cat([own, crossed.flatten(0, 1)])


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
    return balance(base, models, **norms)[i]
