"""The status of a search under way, in a small file for other terminals."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Self

from mergesearch.runs import Status, TrialRecord, write_status
from mergesearch.searching.policies.stopping import Limit

#: Seconds between two writes.
_PACE = 1.0


class StatusFile:
    """An observer that keeps in a run's folder what its search does.

    The file is replaced whole once a second: whoever reads it needs no lock, and sees by its age if
    the search is alive.

    Args:
        folder: of the run, which this process holds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = time.time()
        self._stage = ""
        self._spent = ""
        self._n_documents = 0
        self._workers: Mapping[str, str] = {}
        self._ended = Event()
        self._writer = Thread(target=self._keep_writing, daemon=True)

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._writer.join()
        self._workers = {}
        self._write()

    def stage(self, text: str) -> None:
        """Take what begins."""
        self._stage = text

    def trial(self, trial: TrialRecord, limit: Limit, best: float | None) -> None:
        """Take what a trial took."""
        self._n_documents += trial.n_documents
        self._spent = f"{limit.used:,.6g} of {limit.most:,.6g} {limit.unit}"

    def learning(self, done: int, most: int) -> None:
        """Take how far learning has come."""
        self._stage = f"learning: {done:,} of {most:,} documents"

    def working(self, doing: Mapping[str, str]) -> None:
        """Take what each worker does."""
        self._workers = dict(doing)

    def _keep_writing(self) -> None:
        self._write()
        while not self._ended.wait(_PACE):
            self._write()

    def _write(self) -> None:
        status = Status(
            process=os.getpid(),
            host=socket.gethostname(),
            began=self._began,
            written=time.time(),
            ended=self._ended.is_set(),
            stage=self._stage,
            spent=self._spent,
            n_documents=self._n_documents,
            workers=dict(self._workers),
        )
        write_status(self._folder, status)
