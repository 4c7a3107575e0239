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
    further_objectives,
    header,
    heads,
    leaderboard,
    markdown,
    show_objective,
    table,
)

__all__ = [
    "FORMATS",
    "Entry",
    "caution",
    "entries_of",
    "front_of",
    "further_objectives",
    "header",
    "heads",
    "leaderboard",
    "markdown",
    "ranked",
    "run_labels",
    "show_objective",
    "table",
    "verdict",
]
