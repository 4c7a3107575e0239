"""Runs on disk: the folder one process holds, and the record that survives a kill."""

from mergesearch.runs.folder import hold, identity_of, is_run, write_whole
from mergesearch.runs.record import Record, Row, SoupStep, TrialEntry, drop_torn_line

__all__ = [
    "Record",
    "Row",
    "SoupStep",
    "TrialEntry",
    "drop_torn_line",
    "hold",
    "identity_of",
    "is_run",
    "write_whole",
]
