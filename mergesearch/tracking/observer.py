"""An observer that passes on to trackers what a search says."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.tracking.base import TrackedRun, Tracker, TrackerFactory
from mergesearch.tracking.table import TRACKERS

if TYPE_CHECKING:
    from mergesearch.searching import Limit, TrialRecord


#: Seconds that a tracker may take for one thing that it is told.
PATIENCE = 120.0


class Tracking:
    """Trackers of one search, opened and finished with a block.

    One that fails or hangs, at its opening or later, is said in one line and told nothing more: no
    tracker stops a search.

    Args:
        names: of trackers, as in `TRACKERS`.
        run: the run's folder.
        config: what the trackers show of the search.
        say: is told, in a line, that one failed.

    Raises:
        InputError: there is no such tracker, or its package is not installed.
    """

    def __init__(
        self,
        names: Iterable[str],
        run: Path,
        config: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._folder = run
        self._say = say
        self._trackers: dict[str, _Apart] = {}
        key = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
        tracked = TrackedRun(run.resolve().name, key, config)
        for name in dict.fromkeys(names):
            if name not in TRACKERS:
                raise InputError(unknown("tracker", name, TRACKERS))
            self._open(name, tracked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        values, files = self._outcome() if kind is None and self._trackers else ({}, {})
        self._tell(lambda tracker: tracker.finish(values, files))

    def stage(self, text: str) -> None:
        """Pass nothing on."""

    def working(self, doing: Mapping[str, str]) -> None:
        """Pass nothing on."""

    def learning(self, done: int, most: int) -> None:
        """Pass nothing on."""

    def trial(self, trial: "TrialRecord", limit: "Limit", best: float | None) -> None:
        """Pass on the numbers of a trial; of one that failed, what it cost."""
        numbers = {
            "score": trial.score,
            "best": best,
            "share": trial.share if trial.score is not None else None,
            "documents": trial.n_documents,
            "seconds": trial.seconds,
            **{f"objectives/{name}": value for name, value in trial.objectives.items()},
        }
        values = {name: float(value) for name, value in numbers.items() if value is not None}
        self._tell(lambda tracker: tracker.log(values, trial.number))

    def _open(self, name: str, run: TrackedRun) -> None:
        tracker = _Apart(name)
        error = tracker.do(lambda: tracker.open(TRACKERS[name], run))
        if isinstance(error, ModuleNotFoundError):
            raise InputError(f"--track {name} needs its package: pip install 'mergesearch[{name}]'")
        if error is None:
            self._trackers[name] = tracker
        else:  # no network, no account, a package that does not work
            self._failed(name, error)

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        """Tell every tracker that still works."""
        for name, tracker in list(self._trackers.items()):
            if (error := tracker.do(partial(tracker.tell, what))) is not None:
                del self._trackers[name]
                self._failed(name, error)

    def _failed(self, name: str, error: BaseException) -> None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        self._say(f"{name} fails, and is told nothing more: {reason}")

    def _outcome(self) -> tuple[dict[str, float], dict[str, str]]:
        """Give the winner's scores by name, and the files of the run."""
        from mergesearch.report import artifacts, entries_of

        values = {}
        for winner in (e for e in entries_of(self._folder) if e.role == "winner"):
            for split, scores in (("search", winner.search), ("held_out", winner.held_out)):
                if scores is not None:
                    # no name begins another: MLflow makes folders of them
                    values[f"winner/{split}/score"] = scores.total
                    values |= {f"winner/{split}/{t.id.task}": t.value for t in scores.tasks}
        return values, artifacts(self._folder)


class _Apart:
    """A tracker in a thread of its own, which no search waits for without end.

    All that it does it does there: trackers keep what they have open by thread.
    """

    opened: Tracker

    def __init__(self, name: str) -> None:
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._told: SimpleQueue[BaseException | None] = SimpleQueue()
        # a daemon: Python's end does not wait for it
        threading.Thread(target=self._run, name=f"tracker {name}", daemon=True).start()

    def open(self, row: TrackerFactory, run: TrackedRun) -> None:
        """Open the tracker."""
        self.opened = row.open(run)

    def tell(self, what: Callable[[Tracker], None]) -> None:
        """Tell the tracker that is open."""
        what(self.opened)

    def do(self, what: Callable[[], None]) -> BaseException | None:
        """Do something there; return what it raised, a TimeoutError if it hangs."""
        self._asked.put(what)
        try:
            return self._told.get(timeout=PATIENCE)
        except Empty:
            return TimeoutError(f"no answer for {PATIENCE:.0f} s")

    def _run(self) -> None:
        while True:
            what = self._asked.get()
            try:
                what()
            except BaseException as error:  # whatever a tracker raises, SystemExit, too
                self._told.put(error)
            else:
                self._told.put(None)
