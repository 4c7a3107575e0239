"""The table of objectives, and what a name that is none of them stands for."""

from mergesearch.objectives import score, size
from mergesearch.objectives.base import Objective
from mergesearch.objectives.task import task_objective
from mergesearch.plugins import Table

#: The suite's total, and the number of a model's parameters.
SCORE, SIZE = "score", "size"

OBJECTIVES = Table(
    "mergesearch.objectives", Objective, {SCORE: score.OBJECTIVE, SIZE: size.OBJECTIVE}
)


def objective_of(name: str) -> Objective:
    """Return the objective of a name: a row of the table, or a task or group."""
    return OBJECTIVES[name] if name in OBJECTIVES else task_objective(name)
