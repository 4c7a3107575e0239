"""The status of a run, as the terminal shows it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import typer

from mergesearch.cli.options import RunFolder

if TYPE_CHECKING:
    from mergesearch.runs import Record, Status


def status(run: RunFolder) -> None:
    """Say how far a run has come, and what its workers do; while it runs, too."""
    from mergesearch.runs import Record, identity_of, read_status

    identity_of(run)  # refuses what is no run
    for line in lines(Record(run, writable=False), read_status(run)):
        typer.echo(line)


def lines(record: Record, status: Status | None) -> list[str]:
    """Lay out a run's status."""
    trials = record.trials
    n_failed = sum(trial.error is not None for trial in trials)
    n_stopped = sum(trial.score is not None and trial.share < 1 for trial in trials)
    found = [f"{len(trials)} trials have ended, {n_stopped} stopped early and {n_failed} failed"]
    whole = [trial for trial in trials if trial.is_whole and trial.feasible]
    if whole:
        best = max(whole, key=lambda trial: trial.score or 0.0)
        found.append(f"best so far: {best.score:.4f}, trial {best.number}, {best.method}")
    if status is None:
        return [*found, "no search has run in it with this version"]
    age = max(0.0, time.time() - status.written)
    who = f"process {status.process} on {status.host}"
    if not status.is_alive:
        how = "has ended" if status.ended else "stopped without a word"
        return [*found, f"{who} {how}, {age:,.0f} s ago; it is run by nobody"]
    found.append(f"{who} searches, for {status.written - status.began:,.0f} s")
    if status.spent:
        found.append(f"spent: {status.spent}; {status.documents_per_second:.1f} documents/s")
    if status.stage:
        found.append(f"stage: {status.stage}")
    workers = sorted(status.workers.items(), key=_by_number)
    return [*found, *(f"  {name}: {what}" for name, what in workers)]


def _by_number(worker: tuple[str, str]) -> list[tuple[int, str]]:
    """Order worker 2 before worker 10."""
    return [(int(f"0{number}"), text) for text, number in re.findall(r"(\D*)(\d*)", worker[0])]
