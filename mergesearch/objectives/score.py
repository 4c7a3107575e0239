"""The suite's score: the weighted mean of its tasks."""

from typing import TYPE_CHECKING

from mergesearch.objectives.base import Measured, Objective

if TYPE_CHECKING:
    from mergesearch.scores import Scores


def _all(scores: "Scores") -> "Scores":
    return scores


def _total(candidate: Measured) -> float:
    return candidate.scores.total


OBJECTIVE = Objective(measure=_total, part=_all)
