"""The journal of a study in a run's folder: Optuna's file, with one writer."""

import json
import os
from pathlib import Path
from threading import Lock
from typing import Any

from optuna.storages.journal import JournalFileBackend

#: Operations of Optuna's journal that set one field of a trial under way: what a power cut may
#: take with the trial, which is then asked for again.
_OF_A_TRIAL = (5, 7, 8, 9)  # a parameter, an intermediate value, a user's and a system attribute


class Journal(JournalFileBackend):
    """Optuna's journal file, for the process that holds the run.

    Nobody else writes, so there is no lock file; and what a trial is made of comes to disk with
    its beginning or its end, not one by one. A kill of the process loses none of it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._writing = Lock()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._writing, self._path.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            if any(log["op_code"] not in _OF_A_TRIAL for log in logs):
                os.fsync(file.fileno())
