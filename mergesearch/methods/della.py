"""DELLA's rule: keep random entries of each task vector, large ones more often."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods.formula import ByRow, Formula, index_of, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.noise import uniform
from mergesearch.methods.sparse import KeepRule


def rising_chances(
    inputs: Inputs, density: Sequence[float], epsilon: Sequence[float]
) -> dict[str, Any]:
    """MAGPRUNE, the drop of DELLA (arXiv:2406.11617), before its elect and fuse.

    In each row of a task vector, the probability of keeping an entry rises evenly with the rank
    of its magnitude, from density - epsilon to density + epsilon. Among equal magnitudes those of
    higher index rank higher; a row of one entry has the density itself.

    Args:
        inputs: the base and n models, with a random key for each.
        density: n floats in (0, 1], the paper's 1 - p; at 1 all is kept.
        epsilon: n floats; density - epsilon and density + epsilon lie in (0, 1).
    """
    spread = [0.0 if d >= 1 else e for d, e in zip(density, epsilon, strict=True)]
    # no candidate changes the ranks, and sorting takes longer than all the rest
    ones = [inputs.only(i) for i in range(len(density))]
    ranks = [one.recall("ranks", partial(_ranks, one)) for one in ones]
    return {
        **{f"ranks_{i}": ByRow(ranks_of_model) for i, ranks_of_model in enumerate(ranks)},
        "keys": inputs.keys,
        "low": numbers([d - e for d, e in zip(density, spread, strict=True)], inputs),
        "step": numbers([2 * e for e in spread], inputs),
    }


def keep_by_rank(
    deltas: Sequence[Tensor],
    first: Tensor,
    keys: Tensor,
    low: Tensor,
    step: Tensor,
    **ranks: Tensor,
) -> list[Tensor]:
    """Masks of what chance keeps, at a probability of low + step rank."""
    index = index_of(first, deltas[0])
    columns = index.shape[-1]
    masks = []
    for i in range(len(deltas)):
        # r_i of the paper, within its row
        rank = ranks[f"ranks_{i}"].float()
        rank = rank / (columns - 1) if columns > 1 else torch.full_like(rank, 0.5)
        masks.append(uniform(index, keys[i]) < low[i] + step[i] * rank)
    return masks


def _ranks(one: Inputs) -> Tensor:
    """Ranks of the magnitudes within each row, the smallest being 0: (rows, columns).

    In int32, since torch compiles conversions from int16 to slow code.
    """
    ranks = torch.empty(one.shape, dtype=torch.int32, device=one.device)
    for rows, order in one.values(Formula(_ascending)):
        rank = torch.arange(order.shape[-1], dtype=torch.int32, device=order.device)
        ranks[rows].scatter_(-1, order, rank.expand_as(order))
    return ranks


def _ascending(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    return (models[0] - base).abs().argsort(dim=-1, stable=True)


DELLA = KeepRule(rising_chances, keep_by_rank)
