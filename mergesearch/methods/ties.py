"""TIES' rule: keep the largest entries of each task vector."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import among, cut_constants, delta_cuts
from mergesearch.methods.sparse import KeepRule


def largest(inputs: Inputs, density: Sequence[float]) -> dict[str, Any]:
    """Cuts of TIES-Merging (arXiv:2306.01708, Algorithm 1, step 1).

    Of each task vector the max(1, int(density n)) entries of largest magnitude are kept; among
    equal magnitudes at the threshold those of lower index (row-major).

    Args:
        inputs: the base and n models.
        density: n floats in (0, 1], the paper's k: the fraction of each task vector that is kept.
    """
    n = inputs.n_entries  # d of the paper
    cuts = [delta_cuts(inputs, i, max(1, int(d * n)))[0] for i, d in enumerate(density)]
    return cut_constants(cuts, inputs)


def keep_largest(
    deltas: Sequence[Tensor], first: Tensor, threshold: Tensor, last: Tensor
) -> list[Tensor]:
    """Masks of the entries that are among the largest of their task vector."""
    return [among(d.abs(), threshold[i], last[i], first) for i, d in enumerate(deltas)]


TOP_K = KeepRule(largest, keep_largest)
