"""DARE's rule: keep random entries of each task vector."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods.formula import index_of
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.noise import bits, limit
from mergesearch.methods.sparse import KeepRule


def chances(inputs: Inputs, density: Sequence[float]) -> dict[str, Any]:
    """Drop of DARE (arXiv:2311.03099): the density is the probability of keeping.

    Args:
        inputs: the base and n models, with a random key for each.
        density: n floats in (0, 1], the paper's 1 - p.
    """
    most = torch.tensor([limit(d) for d in density], dtype=torch.int32, device=inputs.device)
    return {"keys": inputs.keys, "most": most}


def keep_by_chance(
    deltas: Sequence[Tensor], first: Tensor, keys: Tensor, most: Tensor
) -> list[Tensor]:
    """Masks of the entries whose random bits are at most `most`."""
    index = index_of(first, deltas[0])
    # m ~ Bernoulli(p), of which 1 - m stays
    return [bits(index, keys[i]) <= most[i] for i in range(len(deltas))]


DARE = KeepRule(chances, keep_by_chance)
