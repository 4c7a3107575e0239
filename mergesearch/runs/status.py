"""The status of a run: what its process does at the moment, for people who look."""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

_FILE = "status.json"
#: Seconds after its last word in which a process counts as alive.
_ALIVE = 10.0


@dataclass(frozen=True)
class Status:
    """The doings of the process that holds a run.

    >>> from mergesearch.runs import Status
    >>> status = Status(process=7, host="here", began=0.0, written=20.0, n_documents=300)
    >>> status.documents_per_second
    15.0
    """

    process: int
    host: str
    #: When it opened the run, and when it said this, in seconds since 1970.
    began: float
    written: float
    #: It has come to its end, one way or another.
    ended: bool = False
    stage: str = ""
    #: Of the budget.
    spent: str = ""
    #: Answered for trials since it opened the run.
    n_documents: int = 0
    #: What each worker does, by its name.
    workers: Mapping[str, str] = field(default_factory=dict)

    @property
    def documents_per_second(self) -> float:
        """Documents of ended trials a second, since the process opened the run."""
        return self.n_documents / max(self.written - self.began, 1e-9)

    @property
    def is_alive(self) -> bool:
        """If the process has said something of late, and not that it ended."""
        return not self.ended and time.time() - self.written < _ALIVE


def write_status(folder: Path, status: Status) -> None:
    """Replace a run's status; where that cannot be done it stays as it was.

    It is no part of the record, and not worth an fsync.
    """
    partial = folder / f"{_FILE}.partial"
    with contextlib.suppress(OSError):  # a full disk is said by what must not be lost
        partial.write_text(json.dumps(asdict(status)), encoding="utf-8")
        partial.replace(folder / _FILE)


def read_status(folder: Path) -> Status | None:
    """Read a run's status; None where there is none, or none that can be read."""
    try:
        return Status(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
