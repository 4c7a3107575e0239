"""The page's leaderboard: the rows of the other formats, intervals drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergesearch.report.columns import (
    columns_of,
    further_objectives,
    header,
    heads,
    is_missing,
    of_models,
    rows_of,
    show_objective,
)
from mergesearch.report.entries import Entry, caution, remarks, run_labels


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the number that it is sorted by."""

    text: str
    #: None where it is sorted as text.
    number: float | None = None
    #: How much of the cell a bar fills, in percent; None for no bar.
    fill: float | None = None
    #: The ends of an interval and the value, in percent of the column's range.
    span: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Board:
    """A leaderboard as the page shows it."""

    columns: Sequence[str]
    #: A model's role, and its cells.
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str]


def board(entries: list[Entry]) -> Board:
    """Lay out models, the best first."""
    rows = rows_of(entries)
    several = len(run_labels(entries)) > 1
    lead = [*(["run"] if several else []), "model", "method", "search", "held_out", "interval"]
    apart = {*lead, "run", "low", "high", "recipe"}
    names = [*lead, *(name for name in columns_of(rows) if name not in apart), "recipe"]
    shown = {header(name): name for name in of_models(further_objectives(entries))}
    marked = heads(entries)
    marked["interval"] = marked.get("95 % interval", "95 % interval")
    body = [
        (entry.role, [_cell(entry, row, rows, name, shown) for name in names])
        for entry, row in zip(entries, rows, strict=True)
    ]
    notes = [f"* {note}" if (note := caution(entries)) else "", *remarks(entries)]
    titles = [marked.get(name, name).replace("held_out", "held-out") for name in names]
    return Board(titles, body, [note for note in notes if note])


def _cell(
    entry: Entry,
    row: dict[str, Any],
    rows: list[dict[str, Any]],
    name: str,
    shown: dict[str, str],
) -> Cell:
    if name == "interval":
        return _interval(row, rows)
    value = row.get(name)
    if is_missing(value):
        return Cell("")
    if value is not None and name in shown:
        return Cell(show_objective(entry, shown[name]), float(value))
    if isinstance(value, float):
        return Cell(f"{value:.3f}", value, _fill(value, [r.get(name) for r in rows]))
    return Cell(str(value))


def _fill(value: float, others: list[Any]) -> float:
    """Place a value between 0 and 1, or if any is outside, the column's ends."""
    known = [other for other in others if not is_missing(other)]
    low, high = min([0.0, *known]), max([*known, 1.0 if max(known) <= 1 else 0.0])
    if low < 0:
        low = min(known)
    return 100 * (value - low) / (high - low) if high > low else 100.0


def _interval(row: dict[str, Any], rows: list[dict[str, Any]]) -> Cell:
    low, high = row["low"], row["high"]
    if is_missing(low):
        return Cell("")
    bounds = [b for r in rows for b in (r["low"], r["high"]) if not is_missing(b)]
    start, width = min(bounds), (max(bounds) - min(bounds)) or 1.0
    total = row["search"] if is_missing(row["held_out"]) else row["held_out"]
    span = tuple(100 * (at - start) / width for at in (low, high, total))
    return Cell(f"[{low:.3f}, {high:.3f}]", low, span=(span[0], span[1], span[2]))
