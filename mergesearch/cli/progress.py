"""The progress of a search, as the terminal shows it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergesearch.searching import Limit, TrialRecord


class Progress:
    """An observer that shows a bar on a terminal and plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[spent]}"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("trials", total=None, spent="", detail="", visible=False)
        #: The bars of workers, by their names.
        self._workers: dict[str, TaskID] = {}
        self._start = time.perf_counter()
        self._documents = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """Say what begins."""
        self._line(text)

    def trial(self, trial: TrialRecord, limit: Limit, best: float | None) -> None:
        """Show a trial that has ended, the best so far, and the speed.

        What was tried comes last, since names differ most in length; `~` is before the score that
        a candidate which was stopped would have reached.
        """
        self._documents += trial.n_documents
        speed = self._documents / (time.perf_counter() - self._start)
        highest = f"{best:.4f}" if best is not None else "none"
        score, note = "failed", f": {trial.error}"
        if trial.score is not None:
            early = trial.share < 1
            score = f"{'~' * early}{trial.score:.4f}"
            note = f", stopped at {trial.share * 100:.0f} %" if early else ""
            note += "" if trial.n_documents else ", known already"
            note += "".join(f", breaks {constraint}" for constraint in trial.broken)
        spent = _spent(limit)
        self._line(
            f"trial {trial.number:>3}  [{spent}]  {score:>7}  best {highest}  "
            f"{trial.seconds:>5.1f} s  {trial.method}{note}"
        )
        self._bar.update(
            self._task,
            total=limit.most,
            completed=limit.used,
            spent=spent,
            detail=f"best {highest}, {speed:.0f} documents/s",
            visible=True,
        )

    def learning(self, done: int, most: int) -> None:
        """Show how far learning has come."""
        self._bar.update(
            self._task,
            total=most,
            completed=done,
            spent=f"{done:,}/{most:,} documents learned from",
            detail="",
            visible=True,
        )

    def working(self, doing: Mapping[str, str]) -> None:
        """Show what each worker does, where there are several."""
        for name in set(self._workers) - doing.keys():
            self._bar.update(self._workers[name], visible=False)
        if not self._workers and len(doing) < 2:
            return
        for name, what in doing.items():
            if name not in self._workers:
                self._workers[name] = self._bar.add_task(name, total=None, spent="", detail="")
            self._bar.update(self._workers[name], spent=escape(what), visible=True)

    def _line(self, text: str) -> None:
        if self._console.is_terminal:
            self._bar.console.print(escape(text), highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _spent(limit: Limit) -> str:
    """Write what is spent of a limit, always as wide: `   300/30,000 documents`."""
    most = f"{limit.most:,}"
    used = f"{limit.used:,.1f}" if limit.unit == "minutes" else f"{limit.used:,}"
    return f"{used:>{len(most)}}/{most}" + f" {limit.unit}" * (limit.unit != "trials")
