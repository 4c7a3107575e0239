"""The order of scoring: seeded and stratified, for every beginning to be a sample."""

from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

#: The order is one for all candidates, studies and machines.
_SEED = 20_26


def stratified_order(strata: Sequence[Hashable]) -> tuple[int, ...]:
    """Order indices so that every beginning holds about its share of each stratum.

    Args:
        strata: of each document, in the order of their ids.
    """
    generator = np.random.default_rng(_SEED)
    members: dict[Hashable, list[int]] = {}
    for index, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(index)
    # The k-th of n shuffled members comes at (k + u) / n of the way.
    when = np.empty(len(strata))
    for indices in members.values():
        n = len(indices)
        when[generator.permutation(indices)] = (np.arange(n) + generator.random(n)) / n
    return tuple(int(index) for index in np.argsort(when, kind="stable"))


def split_evenly(n: int, n_blocks: int) -> list[range]:
    """Cut `n` indices into so many ranges, whose lengths differ by one at most."""
    edges = [round(n * k / n_blocks) for k in range(n_blocks + 1)]
    return [range(start, end) for start, end in pairwise(edges)]
