"""Leaderboards over one or many runs, and the verdict on a run's winner."""

from mergesearch.report.entries import Entry, entries_of, ranked, verdict
from mergesearch.report.leaderboard import FORMATS, leaderboard, markdown, table

__all__ = [
    "FORMATS",
    "Entry",
    "entries_of",
    "leaderboard",
    "markdown",
    "ranked",
    "table",
    "verdict",
]
