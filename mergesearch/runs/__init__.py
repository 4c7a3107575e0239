"""Runs on disk: the folder one process holds, its record and its documents."""

from mergesearch.runs.documents import Documents
from mergesearch.runs.entries import LeaderboardRow, SoupStep, SuiteEntry, TaskEntry
from mergesearch.runs.folder import hold, identity_of, is_run
from mergesearch.runs.passes import Pass, PassEntry, PassesOf
from mergesearch.runs.record import Record
from mergesearch.runs.trials import TrialRecord

__all__ = [
    "Documents",
    "LeaderboardRow",
    "Pass",
    "PassEntry",
    "PassesOf",
    "Record",
    "SoupStep",
    "SuiteEntry",
    "TaskEntry",
    "TrialRecord",
    "hold",
    "identity_of",
    "is_run",
]
