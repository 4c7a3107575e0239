"""DARE: drop random entries of the task vectors, rescale, then merge."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import Formula, index_of
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.noise import bits, limit
from mergesearch.methods.sparse import Rescale, sparse


def dare_linear(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = True,
) -> Formula:
    """DARE (arXiv:2311.03099) followed by task arithmetic.

    Args:
        inputs: the base and n models, with a random key for each.
        weight: n floats.
        density: n floats in (0, 1]: the probability of keeping an entry.
        lambda_: scale of the merged delta.
        normalize: divide by the sum of the weights.
        rescale: see `sparse.sparse`.
    """
    return _dare(inputs, weight, density, lambda_, normalize, rescale, signs=False)


def dare_ties(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: Rescale = True,
) -> Formula:
    """DARE, then the sign election of TIES; arguments as for `dare_linear`."""
    return _dare(inputs, weight, density, lambda_, normalize, rescale, signs=True)


def keep_by_chance(
    deltas: Sequence[Tensor], first: Tensor, keys: Tensor, most: Tensor
) -> list[Tensor]:
    """Whether each entry's random bits, of which `most` are the largest that say yes, keep it."""
    index = index_of(first, deltas[0])
    return [bits(index, keys[i]) <= most[i] for i in range(len(deltas))]


def _dare(
    inputs: Inputs,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float,
    normalize: bool,
    rescale: Rescale,
    *,
    signs: bool,
) -> Formula:
    most = torch.tensor([limit(d) for d in density], dtype=torch.int32, device=inputs.device)
    return sparse(
        inputs, keep_by_chance, {"keys": inputs.keys, "most": most}, weight=weight,
        density=density, lambda_=lambda_, normalize=normalize, rescale=rescale, signs=signs,
    )  # fmt: skip
