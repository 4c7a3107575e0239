"""Numbers per document, what they sum to, and how sure they are; without torch or lm-eval."""

from mergesearch.scores.intervals import (
    Interval,
    Resampled,
    interval,
    paired_difference,
    paired_lead,
    resampled,
)
from mergesearch.scores.scores import DocumentScore, Scores, TaskScore, summary

__all__ = [
    "DocumentScore",
    "Interval",
    "Resampled",
    "Scores",
    "TaskScore",
    "interval",
    "paired_difference",
    "paired_lead",
    "resampled",
    "summary",
]
