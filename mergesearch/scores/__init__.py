"""Numbers per document, their sums and intervals; without torch or lm-eval."""

from mergesearch.scores.intervals import Interval, interval, paired_difference, paired_lead
from mergesearch.scores.scores import DocumentScore, Scores, TaskScore, summary
from mergesearch.scores.task_id import TaskId

__all__ = [
    "DocumentScore",
    "Interval",
    "Scores",
    "TaskId",
    "TaskScore",
    "interval",
    "paired_difference",
    "paired_lead",
    "summary",
]
