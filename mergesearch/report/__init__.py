"""Leaderboards over one or many runs, and the verdict on a run's winner."""

from mergesearch.report.columns import (
    PARAMETERS,
    further_objectives,
    heads,
    in_millions,
    table,
)
from mergesearch.report.entries import (
    Entry,
    caution,
    entries_of,
    front_of,
    ranked,
    run_labels,
)
from mergesearch.report.formats import REPORTS, ReportFormat, format_of, leaderboard
from mergesearch.report.markdown import markdown
from mergesearch.report.verdict import verdict

__all__ = [
    "PARAMETERS",
    "REPORTS",
    "Entry",
    "ReportFormat",
    "caution",
    "entries_of",
    "format_of",
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
