"""Numbers per document, their sums and intervals; without torch or lm-eval."""

from mergesearch.scores.changes import Change, changes, largest_changes
from mergesearch.scores.intervals import (
    Interval,
    Resampled,
    interval,
    paired_difference,
    paired_lead,
    resampled,
)
from mergesearch.scores.scores import DocumentScore, Scores, TaskScore, summary
from mergesearch.scores.task_id import TaskId

__all__ = [
    "Change",
    "DocumentScore",
    "Interval",
    "Resampled",
    "Scores",
    "TaskId",
    "TaskScore",
    "changes",
    "interval",
    "largest_changes",
    "paired_difference",
    "paired_lead",
    "resampled",
    "summary",
]
