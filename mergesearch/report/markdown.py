"""Leaderboards as Markdown."""

from collections.abc import Iterator
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


def markdown(entries: list[Entry]) -> str:
    """Write a table for people, the winner in bold, runs named if there are several.

    What its `*` mean, if there are any, stands below it, and the fields in which models that were
    merged differ.
    """
    from tabulate import tabulate

    rows = rows_of(entries)
    if not rows:
        return "No models yet."
    lead = ["model", "method", "search", "held_out", "95 % interval"]
    if len(run_labels(entries)) > 1:
        lead = ["run", *lead]
    apart = {*lead, "run", "low", "high", "recipe"}
    names = [*lead, *(name for name in columns_of(rows) if name not in apart), "recipe"]
    marked = heads(entries)
    text = tabulate(
        [[_cell(shown.get(name)) for name in names] for shown in _for_people(entries, rows)],
        headers=[marked.get(name, name).replace("held_out", "held-out") for name in names],
        tablefmt="pipe",
        disable_numparse=True,
    )
    notes = [f"`*` {note}" if (note := caution(entries)) else "", *remarks(entries)]
    return "\n\n".join(filter(None, [text, *notes]))


def _for_people(entries: list[Entry], rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each row bounds as one cell, objectives for people, a bold winner."""
    shown = of_models(further_objectives(entries))
    for entry, row in zip(entries, rows, strict=True):
        bounds = entry.interval
        yield row | {
            "model": f"**{entry.label}**" if entry.role == "winner" else entry.label,
            "95 % interval": f"[{bounds.low:.3f}, {bounds.high:.3f}]" if bounds else "",
            **{header(name): show_objective(entry, name) for name in shown},
        }


def _cell(value: Any) -> Any:
    if is_missing(value):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else value
