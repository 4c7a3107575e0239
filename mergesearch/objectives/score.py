"""The suite's score: the weighted mean of its tasks."""

from mergesearch.objectives.base import Measured, Objective
from mergesearch.scores import Scores


def _all(scores: Scores) -> Scores:
    return scores


def _total(candidate: Measured) -> float:
    return candidate.scores.total


OBJECTIVE = Objective(measure=_total, part=_all)
