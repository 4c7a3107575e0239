"""The journal of a study in a run's folder: Optuna's file, with one writer."""

import json
import os
from collections.abc import Generator
from pathlib import Path
from threading import Lock
from typing import Any

from optuna.storages.journal import JournalFileBackend

#: Operations of Optuna's journal that set one field of a trial under way: what a power cut may
#: take with the trial, which is then asked for again.
_OF_A_TRIAL = (5, 7, 8, 9)  # a parameter, an intermediate value, a user's and a system attribute


class Journal(JournalFileBackend):
    """Optuna's journal file, for the process that holds the run.

    Nobody else writes, so there is no lock file, and the file is read once: Optuna asks for what is
    new before whatever it does. What a trial is made of comes to disk with its beginning or its
    end, not one by one. A kill of the process loses none of it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._writing = Lock()
        #: Operations that were appended and not yet read.
        self._unread: list[dict[str, Any]] = []
        #: Those that were read; None before the file was.
        self._n_read: int | None = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        with self._writing:
            with self._path.open("ab") as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
                file.flush()
                if any(log["op_code"] not in _OF_A_TRIAL for log in logs):
                    os.fsync(file.fileno())
            self._unread += map(json.loads, lines)  # as the file has them

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the operations from a number on, in their order."""
        with self._writing:
            if log_number_from == self._n_read:
                logs, self._unread = self._unread, []
            else:
                logs, self._unread = list(super().read_logs(log_number_from)), []
            self._n_read = log_number_from + len(logs)
        yield from logs
