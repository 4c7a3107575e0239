"""Leaderboards as the terminal shows them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mergesearch.cli.cells import bounds
from mergesearch.report import (
    Entry,
    caution,
    entries_of,
    further_objectives,
    header,
    heads,
    markdown,
    remarks,
    run_labels,
    show_objective,
    verdict,
)
from mergesearch.scores import Scores


def show_run(folder: Path) -> None:
    """Show the leaderboard of a run, its verdict first, and what to do next."""
    entries = entries_of(folder)
    show_entries(entries)
    print(f"Run folder: {folder}")
    if any(entry.role == "front" for entry in entries):
        print(f"The front:  mergesearch leaderboard {folder} --front")
        print(f"Next:       mergesearch export {folder}, or with --front each model of the front")
    else:
        print(f"Next:       mergesearch export {folder}")


def show_entries(entries: list[Entry]) -> None:
    """Show a leaderboard behind the verdict on one run, or what several warn of."""
    alone = len(run_labels(entries)) == 1
    _show(entries, verdict(entries) if alone else caution(entries))


def show_front(entries: list[Entry]) -> None:
    """Show a leaderboard of fronts, and before it what it warns of."""
    _show(entries, caution(entries))


def _show(entries: list[Entry], opening: str) -> None:
    console = Console()
    if opening:
        # a line of a file is as long as it is
        console.print(escape(opening), highlight=False, soft_wrap=not console.is_terminal)
    if not console.is_terminal:
        print(markdown(entries))
        return
    for remark in remarks(entries):
        console.print(escape(remark), highlight=False)
    table = _table(entries, tasks=True)
    unbounded = console.options.update(max_width=10_000)
    if console.measure(table, options=unbounded).maximum > console.width:
        table = _table(entries, tasks=False)
    console.print(table)


def _table(entries: list[Entry], *, tasks: bool) -> Table:
    """Lay out a row an entry; with `tasks`, a column a task of the best one's split.

    Objectives have columns in either case, whatever split their tasks are of.
    """
    labels = run_labels(entries)
    several = len(labels) > 1
    best = entries[0].deciding if entries else None
    names = [task.id.task for task in best.tasks] if best and tasks else []
    further = [name for name in further_objectives(entries) if name not in names]
    table = Table(box=None, header_style="bold")
    for name in [*(["run"] if several else []), "model", "method"]:
        table.add_column(name, no_wrap=True)
    totals = heads(entries)
    spoiled = {task for entry in entries for task in entry.spoiled}
    for name in (
        *(totals[name] for name in ("search", "held-out", "95 % interval")),
        *(header(n) + "*" * _is_spoiled(entries, n) for n in further),
        *(name + "*" * (name in spoiled) for name in names),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in entries:
        decided = entry.deciding.tasks if entry.deciding else ()
        values = {task.id.task: f"{task.value:.3f}" for task in decided}
        table.add_row(
            *([escape(labels[entry.run])] if several else []),
            entry.label,
            entry.recipe.merge_method,
            _number(entry.search),
            _number(entry.held_out),
            bounds(entry.interval),
            *(show_objective(entry, name) for name in further),
            *(values.get(name, "") for name in names),
            style="bold green" if entry.role == "winner" else None,
        )
    return table


def _is_spoiled(entries: list[Entry], objective: str) -> bool:
    return any(entry.is_spoiled(entry.part(objective)) for entry in entries)


def _number(scores: Scores | None) -> str:
    return f"{scores.total:.3f}" if scores else ""
