"""The objectives of a search: the suite's score, the model's size, each task.

A package adds an objective by an entry point of the group `mergesearch.objectives`, whose object
is an `Objective`; a space then names it under `search.objectives` or in a constraint.
"""

from mergesearch.objectives.base import Direction, Measured, Objective
from mergesearch.objectives.table import OBJECTIVES, SCORE, SIZE, objective_of

__all__ = [
    "OBJECTIVES",
    "SCORE",
    "SIZE",
    "Direction",
    "Measured",
    "Objective",
    "objective_of",
]
