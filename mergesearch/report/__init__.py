"""Leaderboards over one or many runs, and the verdict on a run's winner."""

from mergesearch.report.entries import (
    Entry,
    caution,
    entries_of,
    front_of,
    ranked,
    run_labels,
    verdict,
)
from mergesearch.report.leaderboard import (
    FORMATS,
    PARAMETERS,
    further_objectives,
    heads,
    in_millions,
    leaderboard,
    markdown,
    table,
)

__all__ = [
    "FORMATS",
    "PARAMETERS",
    "Entry",
    "caution",
    "entries_of",
    "front_of",
    "further_objectives",
    "heads",
    "in_millions",
    "leaderboard",
    "markdown",
    "ranked",
    "run_labels",
    "table",
    "verdict",
]
