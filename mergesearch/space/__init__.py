"""The search space: from YAML to Optuna's suggestions, and from those to recipes."""

from mergesearch.space.calibrating import LEARN
from mergesearch.space.choices import GREEDY_SOUP, LEARNED, STACKING
from mergesearch.space.layout import Shape, boundaries
from mergesearch.space.learned import Learned, LearnedPoint
from mergesearch.space.schema import SearchSpace
from mergesearch.space.settings import (
    AUTO,
    BEST_PARENT,
    Constraint,
    Granularity,
    SearchSettings,
)
from mergesearch.space.stacking import Stacking, largest_stack, residual_filters
from mergesearch.space.suggest import BASE, SoupOrder, suggest

__all__ = [
    "AUTO",
    "BASE",
    "BEST_PARENT",
    "GREEDY_SOUP",
    "LEARN",
    "LEARNED",
    "STACKING",
    "Constraint",
    "Granularity",
    "Learned",
    "LearnedPoint",
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
