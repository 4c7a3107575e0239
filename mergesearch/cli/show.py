"""What the terminal shows: progress, tables, estimates."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import optuna
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from mergesearch.report import (
    Entry,
    caution,
    entries_of,
    further_objectives,
    header,
    heads,
    markdown,
    run_labels,
    show_objective,
    verdict,
)
from mergesearch.scores import Interval, Scores, interval
from mergesearch.searching import Limit, TrialRecord

if TYPE_CHECKING:
    from mergesearch.api import Evaluation
    from mergesearch.searching import Estimate, SearchSetup

#: Columns of lm-eval's table that are set to the right.
_NUMBERS = {"Version", "n-shot", "Value", "Stderr"}

# a line for each study and trial, beside our own
optuna.logging.set_verbosity(optuna.logging.WARNING)


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
        self._start = time.perf_counter()
        self._documents = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """Say that a new part of the work begins."""
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

    def _line(self, text: str) -> None:
        if self._console.is_terminal:
            self._bar.console.print(escape(text), highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _spent(limit: Limit) -> str:
    """How much of a limit is spent, as wide for each trial: ` 8/42`, `   300/30,000 documents`."""
    most = f"{limit.most:,}"
    used = f"{limit.used:,.1f}" if limit.unit == "minutes" else f"{limit.used:,}"
    return f"{used:>{len(most)}}/{most}" + f" {limit.unit}" * (limit.unit != "trials")


def run(folder: Path) -> None:
    """The leaderboard of a run, its verdict first, and where things are."""
    found = entries_of(folder)
    entries(found)
    print(f"Run folder: {folder}")
    if any(entry.role == "front" for entry in found):
        print(f"The front:  mergesearch leaderboard {folder} --front")
        print(f"Next:       mergesearch export {folder}, or with --front each model of the front")
    else:
        print(f"Next:       mergesearch export {folder}")


def entries(found: list[Entry]) -> None:
    """A leaderboard, and before it the verdict where it is of one run, or else what it warns of."""
    alone = len(run_labels(found)) == 1
    _board(found, verdict(found) if alone else caution(found))


def front(found: list[Entry]) -> None:
    """A leaderboard of fronts, and before it what it warns of."""
    _board(found, caution(found))


def _board(found: list[Entry], opening: str) -> None:
    console = Console()
    if opening:
        # a line of a file is as long as it is
        console.print(escape(opening), highlight=False, soft_wrap=not console.is_terminal)
    if not console.is_terminal:
        print(markdown(found))
        return
    table = _leaderboard(found, tasks=True)
    unbounded = console.options.update(max_width=10_000)
    if console.measure(table, options=unbounded).maximum > console.width:
        table = _leaderboard(found, tasks=False)
    console.print(table)


def _leaderboard(found: list[Entry], *, tasks: bool) -> Table:
    """A row for each entry; with `tasks`, a column for each task of the best entry's split.

    Objectives have columns in either case, whatever split their tasks are of.
    """
    labels = run_labels(found)
    several = len(labels) > 1
    best = found[0].deciding if found else None
    names = [task.id.task for task in best.tasks] if best and tasks else []
    further = [name for name in further_objectives(found) if name not in names]
    table = Table(box=None, header_style="bold")
    for name in [*(["run"] if several else []), "model", "method"]:
        table.add_column(name, no_wrap=True)
    totals = heads(found)
    spoiled = {task for entry in found for task in entry.spoiled}
    for name in (
        *(totals[name] for name in ("search", "held-out", "95 % interval")),
        *(header(n) + "*" * _is_spoiled(found, n) for n in further),
        *(name + "*" * (name in spoiled) for name in names),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in found:
        decided = entry.deciding.tasks if entry.deciding else ()
        values = {task.id.task: f"{task.value:.3f}" for task in decided}
        table.add_row(
            *([escape(labels[entry.run])] if several else []),
            entry.label,
            entry.recipe.merge_method,
            _number(entry.search),
            _number(entry.held_out),
            _bounds(entry.interval),
            *(show_objective(entry, name) for name in further),
            *(values.get(name, "") for name in names),
            style="bold green" if entry.role == "winner" else None,
        )
    return table


def evaluation(found: Evaluation) -> None:
    """A table of one model's scores, as lm-eval prints them, with intervals and the total."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)  # a line of a file is as long as it is
    table = Table(box=box.MARKDOWN, header_style="bold")
    for name in ("Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"):
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    table.add_column("95 % interval", justify="right")
    for row in found.rows:
        table.add_row(
            escape(f"{' ' * row.depth}- {row.alias}" if row.depth else row.alias),
            row.version,
            row.filter,
            row.n_shot,
            row.metric,
            {True: "↑", False: "↓", None: ""}[row.higher_is_better],
            f"{row.value:.4f}",
            "±",
            "N/A" if row.stderr is None else f"{row.stderr:.4f}",
            _bounds(row.interval),
        )
    whole = interval(found.scores)
    total = f"{found.scores.total:.4f}"
    table.add_row("total", *[""] * 3, "weighted mean", "↑", total, "", "", _bounds(whole))
    with console.capture() as drawn:
        console.print(table)
    print(drawn.get().strip(" \n"))  # without rich's empty lines above and below


def estimate(bench: SearchSetup, found: Estimate) -> None:
    """What a search over a space would take."""
    space = bench.space
    tasks = ", ".join(
        f"{t.id.task} ({t.id.metric}, {t.n_documents})" for t in bench.evaluator.tasks()
    )
    search, seconds = space.search, found.seconds_per_candidate
    minutes = seconds * search.trials / 60
    if search.documents is not None:
        minutes = min(minutes, seconds * search.documents / found.n_documents / 60)
    minutes = min(minutes, search.minutes or minutes)
    print(
        f"models     {len(space.models)} of {found.n_parameters / 1e6:.1f} M parameters, all match"
    )
    for note in bench.parents.alignment.notes:
        print(f"tokens     {note}")
    print(f"methods    {', '.join(space.methods)}")
    print(f"tasks      {tasks}")
    print(f"documents  {found.n_documents} a candidate, {found.n_tokens} tokens")
    print("\n".join(bench.memory.lines()))
    print(
        f"time       about {seconds:.1f} s a candidate, {search.trials} trials in at most "
        f"{minutes:.1f} min at the device's present speed"
    )
    print("Nothing is wrong with this space.")


def _is_spoiled(found: list[Entry], objective: str) -> bool:
    return any(entry.is_spoiled(entry.part(objective)) for entry in found)


def _number(found: Scores | None) -> str:
    return f"{found.total:.3f}" if found else ""


def _bounds(found: Interval | None) -> str:
    return f"[{found.low:.3f}, {found.high:.3f}]" if found else ""
