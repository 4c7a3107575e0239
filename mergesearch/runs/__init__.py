"""Runs on disk: the folder one process holds, and the record and scores that survive a kill."""

from mergesearch.runs.documents import Documents
from mergesearch.runs.entries import Row, SoupStep, SuiteEntry, TaskEntry, TrialEntry
from mergesearch.runs.folder import hold, identity_of, is_run
from mergesearch.runs.record import Record

__all__ = [
    "Documents",
    "Record",
    "Row",
    "SoupStep",
    "SuiteEntry",
    "TaskEntry",
    "TrialEntry",
    "hold",
    "identity_of",
    "is_run",
]
