"""A page that is written again while its search goes on."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mergesearch.errors import MergesearchError
from mergesearch.report.page.render import write_page
from mergesearch.runs import TrialRecord

if TYPE_CHECKING:
    from mergesearch.searching import Limit, Observer

#: Seconds between two pages at least, and how many times as long as it takes to write one.
_PAUSE, _SHARE = 5.0, 20.0


class LivePage:
    """An observer that passes on what it hears, and keeps a run's page up to date.

    Args:
        run: the run's folder.
        observer: is told of everything.
    """

    def __init__(self, run: Path, observer: "Observer") -> None:
        self._run = run
        self._observer = observer
        self._next = 0.0

    def stage(self, text: str) -> None:
        """Pass on a stage."""
        self._observer.stage(text)

    def trial(self, trial: TrialRecord, limit: "Limit", best: float | None) -> None:
        """Pass on a trial, and write the page if it is time."""
        self._observer.trial(trial, limit, best)
        start = time.monotonic()
        if start >= self._next:
            try:
                write_page([self._run], live=True)
            except MergesearchError as error:  # a page is not worth a search
                self._observer.stage(f"no page for now: {error}")
            end = time.monotonic()
            self._next = end + max(_PAUSE, _SHARE * (end - start))

    def learning(self, done: int, most: int) -> None:
        """Pass on how far learning has come."""
        self._observer.learning(done, most)

    def working(self, doing: Mapping[str, str]) -> None:
        """Pass on what workers do."""
        self._observer.working(doing)
