"""A few points of a Pareto front that stand for all of it."""

import math
from collections.abc import Sequence


def spread(points: Sequence[Sequence[float]], n: int) -> list[int]:
    """Choose points that lie apart: the ends of each objective, and few near others.

    The point of smallest crowding distance goes, one after another (Deb et al., A fast and elitist
    multiobjective genetic algorithm: NSGA-II, 2002).

    Args:
        points: of a front, (points, objectives); the first always stays.
        n: how many to choose, at least 1.

    Returns:
        Indices of the chosen points, in their order.
    """
    kept = list(range(len(points)))
    while len(kept) > n:
        distances = _crowding([points[i] for i in kept])
        del kept[min(range(1, len(kept)), key=distances.__getitem__)]
    return kept


def _crowding(points: Sequence[Sequence[float]]) -> list[float]:
    """Sum up over the objectives how far each point's neighbours are from one another."""
    distances = [0.0] * len(points)
    for k in range(len(points[0])):
        order = sorted(range(len(points)), key=lambda i: points[i][k])
        low, high = points[order[0]][k], points[order[-1]][k]
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            if high > low:
                distances[here] += (points[after][k] - points[before][k]) / (high - low)
    return distances
