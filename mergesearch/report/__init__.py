"""Leaderboards over one or many runs, and the verdict on a run's winner."""

from mergesearch.report.entries import Entry, caution, entries_of, ranked, verdict
from mergesearch.report.leaderboard import FORMATS, heads, leaderboard, markdown, table

__all__ = [
    "FORMATS",
    "Entry",
    "caution",
    "entries_of",
    "heads",
    "leaderboard",
    "markdown",
    "ranked",
    "table",
    "verdict",
]
