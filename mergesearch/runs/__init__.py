"""Runs on disk: the folder one process holds, its record and its documents."""

from mergesearch.runs.documents import Documents, DocumentsOf
from mergesearch.runs.entries import LeaderboardRow, SoupStep, SuiteEntry, TaskEntry
from mergesearch.runs.examples import Contrast, Example, read_contrasts, write_contrasts
from mergesearch.runs.folder import hold, identity_of, is_run
from mergesearch.runs.passes import Pass, PassEntry, PassesOf
from mergesearch.runs.process import Process
from mergesearch.runs.record import Record
from mergesearch.runs.status import Status, read_status, write_status
from mergesearch.runs.trials import TrialRecord

__all__ = [
    "Contrast",
    "Documents",
    "DocumentsOf",
    "Example",
    "LeaderboardRow",
    "Pass",
    "PassEntry",
    "PassesOf",
    "Process",
    "Record",
    "SoupStep",
    "Status",
    "SuiteEntry",
    "TaskEntry",
    "TrialRecord",
    "hold",
    "identity_of",
    "is_run",
    "read_contrasts",
    "read_status",
    "write_contrasts",
    "write_status",
]
