"""Leaderboards over one or many runs, and the verdict on a run's winner."""

from mergesearch.report.artifacts import artifacts
from mergesearch.report.columns import (
    further_objectives,
    header,
    heads,
    show_objective,
    table,
)
from mergesearch.report.entries import (
    Entry,
    caution,
    entries_of,
    front_of,
    ranked,
    remarks,
    run_labels,
)
from mergesearch.report.formats import REPORTS, ReportFormat, format_of, leaderboard
from mergesearch.report.markdown import markdown
from mergesearch.report.page import page, write_page
from mergesearch.report.run import RunView
from mergesearch.report.verdict import verdict

__all__ = [
    "REPORTS",
    "Entry",
    "ReportFormat",
    "RunView",
    "artifacts",
    "caution",
    "entries_of",
    "format_of",
    "front_of",
    "further_objectives",
    "header",
    "heads",
    "leaderboard",
    "markdown",
    "page",
    "ranked",
    "remarks",
    "run_labels",
    "show_objective",
    "table",
    "verdict",
    "write_page",
]
