"""The search space: from YAML to Optuna's suggestions, and from those to recipes."""

from mergesearch.space.domains import GREEDY_SOUP, STACKING
from mergesearch.space.layout import Shape, boundaries
from mergesearch.space.schema import SearchSpace
from mergesearch.space.settings import (
    AUTO,
    BEST_PARENT,
    Constraint,
    SearchSettings,
)
from mergesearch.space.stacking import Stacking, largest_stack, residual_filters
from mergesearch.space.suggest import SoupOrder, suggest

__all__ = [
    "AUTO",
    "BEST_PARENT",
    "GREEDY_SOUP",
    "STACKING",
    "Constraint",
    "SearchSettings",
    "SearchSpace",
    "Shape",
    "SoupOrder",
    "Stacking",
    "boundaries",
    "largest_stack",
    "residual_filters",
    "suggest",
]
