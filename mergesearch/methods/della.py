"""DELLA: drop entries of the task vectors at random, small ones more often."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mergesearch.methods.inputs import ByRow, Formula, Inputs, index_of, numbers
from mergesearch.methods.noise import uniform
from mergesearch.methods.sparse import Rescale, sparse


def della(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: Rescale = True,
) -> Formula:
    """DELLA (arXiv:2406.11617), its sign election included.

    In each row of a task vector, the probability of keeping an entry rises evenly with the rank
    of its magnitude, from density - epsilon to density + epsilon. Among equal magnitudes those of
    higher index rank higher; a row of one entry has the density itself.

    Args:
        inputs: the base and n models, with a random key for each.
        weight: n floats.
        density: n floats in (0, 1]; at 1 all is kept.
        epsilon: n floats; density - epsilon and density + epsilon lie in (0, 1).
        lambda_: scale of the merged delta.
        normalize: divide by the sum of the weights that agree.
        rescale: see `sparse.sparse`.
    """
    return _della(inputs, weight, density, epsilon, lambda_, normalize, rescale, signs=True)


def della_linear(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = True,
) -> Formula:
    """DELLA's random drop, then task arithmetic; arguments as for `della`."""
    return _della(inputs, weight, density, epsilon, lambda_, normalize, rescale, signs=False)


def keep_by_rank(
    deltas: Sequence[Tensor],
    first: Tensor,
    keys: Tensor,
    low: Tensor,
    step: Tensor,
    **places: Tensor,
) -> list[Tensor]:
    """Whether chance keeps each entry, at a probability of low + step rank in [0, 1] of its row."""
    index = index_of(first, deltas[0])
    columns = index.shape[-1]
    masks = []
    for i in range(len(deltas)):
        place = places[f"places_{i}"].float()
        rank = place / (columns - 1) if columns > 1 else torch.full_like(place, 0.5)
        masks.append(uniform(index, keys[i]) < low[i] + step[i] * rank)
    return masks


def _places(one: Inputs) -> Tensor:
    """Each entry's place, from the smallest on, among the magnitudes of its row: (rows, columns).

    In int32, since torch compiles conversions from int16 to slow code.
    """
    places = torch.empty(one.shape, dtype=torch.int32, device=one.device)
    for rows, order in one.values(Formula(_ascending)):
        place = torch.arange(order.shape[-1], dtype=torch.int32, device=order.device)
        places[rows].scatter_(-1, order, place.expand_as(order))
    return places


def _ascending(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    return (models[0] - base).abs().argsort(dim=-1, stable=True)


def _della(
    inputs: Inputs,
    weight: Sequence[float],
    density: Sequence[float],
    epsilon: Sequence[float],
    lambda_: float,
    normalize: bool,
    rescale: Rescale,
    *,
    signs: bool,
) -> Formula:
    spread = [0.0 if d >= 1 else e for d, e in zip(density, epsilon, strict=True)]
    # no candidate changes the places, and sorting takes longer than all the rest
    ones = [inputs.only(i) for i in range(len(weight))]
    places = [one.recall("places", partial(_places, one)) for one in ones]
    marks = {
        **{f"places_{i}": ByRow(place) for i, place in enumerate(places)},
        "keys": inputs.keys,
        "low": numbers([d - e for d, e in zip(density, spread, strict=True)], inputs),
        "step": numbers([2 * e for e in spread], inputs),
    }
    return sparse(
        inputs, keep_by_rank, marks, weight=weight, density=density, lambda_=lambda_,
        normalize=normalize, rescale=rescale, signs=signs,
    )  # fmt: skip
