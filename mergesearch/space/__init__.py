"""The search space: YAML to what Optuna may suggest, and from a suggestion to a recipe."""

from mergesearch.space.domains import GREEDY_SOUP
from mergesearch.space.layout import Shape, boundaries
from mergesearch.space.schema import SearchSpace
from mergesearch.space.settings import SAMPLERS
from mergesearch.space.starts import LAMBDAS, Start, starts
from mergesearch.space.suggest import SoupOrder, suggest

__all__ = [
    "GREEDY_SOUP",
    "LAMBDAS",
    "SAMPLERS",
    "SearchSpace",
    "Shape",
    "SoupOrder",
    "Start",
    "boundaries",
    "starts",
    "suggest",
]
