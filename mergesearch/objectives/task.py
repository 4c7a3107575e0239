"""A task or a group of tasks of the suite as an objective."""

from typing import TYPE_CHECKING

from mergesearch.objectives.base import Measured, Objective

if TYPE_CHECKING:
    from mergesearch.scores import Scores


def task_objective(name: str) -> Objective:
    """Make the objective of a task or group; its value is higher where it is better."""

    def part(scores: "Scores") -> "Scores":
        return scores.of(name)

    def measure(candidate: Measured) -> float:
        return part(candidate.scores).total

    def reported(candidate: Measured) -> float:
        scores = part(candidate.scores)
        higher_is_better = any(task.id.higher_is_better for task in scores.tasks)
        return scores.total if higher_is_better else -scores.total

    return Objective(measure=measure, part=part, reported=reported)
