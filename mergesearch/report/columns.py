"""The columns of a leaderboard, whatever it is written as."""

import math
from typing import TYPE_CHECKING, Any

from mergesearch.objectives import OBJECTIVES, SCORE, objective_of
from mergesearch.report.entries import Entry, run_labels
from mergesearch.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

#: The columns of every table; sizes, tasks and groups of tasks come before the last.
FIXED = ("run", "model", "method", "search", "held_out", "low", "high", "recipe")


def table(entries: list[Entry]) -> "pd.DataFrame":
    """Make a data frame with a row a model: its method, and its scores by task.

    Columns: run, model, method, search, held_out, low and high (the 95 % interval of the deciding
    score), parameters where models differ in their number or a search had the size for an
    objective, one column a task, one for each group of tasks that is an objective, and recipe (the
    hash's first twelve digits). What was not scored is NaN. A `*` ends the names of columns that a
    search on a benchmark's test set has spoiled.
    """
    import pandas as pd

    rows = rows_of(entries)
    frame = pd.DataFrame(rows, columns=columns_of(rows))
    for name in of_models(further_objectives(entries)):
        if objective_of(name).whole:
            frame[header(name)] = frame[header(name)].astype("Int64")  # also where one is unknown
    return frame.rename(columns=heads(entries))


def rows_of(entries: list[Entry]) -> list[dict[str, Any]]:
    """Return the values of each model by column, totals' columns unmarked.

    A row lacks the tasks that its model was not scored on; other numbers that are unknown are NaN,
    or None if they are whole.
    """
    labels, further = run_labels(entries), further_objectives(entries)
    return [_row(entry, labels[entry.run], further) for entry in entries]


def _row(entry: Entry, run: str, further: list[str]) -> dict[str, Any]:
    bounds = entry.interval
    row: dict[str, Any] = {
        "run": run,
        "model": entry.label,
        "method": entry.recipe.merge_method,
        "search": _total(entry.search),
        "held_out": _total(entry.held_out),
        "low": bounds.low if bounds else math.nan,
        "high": bounds.high if bounds else math.nan,
    }
    row |= {header(name): entry.value(name) for name in of_models(further)}
    for scores in (entry.search, entry.held_out):
        for task in scores.tasks if scores else ():
            name = task.id.task
            row[f"{name} {task.id.metric}" + "*" * (name in entry.spoiled)] = task.value
    tasks = {task.id.task for task in entry.search.tasks} if entry.search else set()
    for group in (name for name in further if name not in {*tasks, *of_models(further)}):
        row[group + "*" * entry.is_spoiled(entry.part(group))] = entry.value(group)
    return {**row, "recipe": entry.recipe.hash[:12]}


def columns_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names of rows' columns, in the order they come, the recipe's last."""
    names = dict.fromkeys(name for row in rows for name in row) if rows else dict.fromkeys(FIXED)
    return [*(name for name in names if name != "recipe"), "recipe"]


def is_missing(value: Any) -> bool:
    """Say if a cell has no value to show."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def heads(entries: list[Entry]) -> dict[str, str]:
    """Name the columns of totals, with a `*` where a number of theirs is spoiled."""
    held_out = any(entry.is_spoiled(entry.held_out) for entry in entries)
    deciding = any(entry.is_spoiled(entry.deciding) for entry in entries)
    spoiled = {
        "search": any(entry.is_spoiled(entry.search) for entry in entries),
        **dict.fromkeys(("held_out", "held-out"), held_out),
        **dict.fromkeys(("low", "high", "95 % interval"), deciding),
    }
    return {name: name + "*" * is_spoiled for name, is_spoiled in spoiled.items()}


def further_objectives(entries: list[Entry]) -> list[str]:
    """List what has a column beside the total: objectives, and what models differ in."""
    names = {name: None for entry in entries for name in entry.objectives if name != SCORE}
    # a package's is shown where a search asks for it
    for name in (name for name in OBJECTIVES.own if not OBJECTIVES[name].from_documents):
        if len({entry.value(name) for entry in entries} - {None}) > 1:
            names[name] = None
    return list(names)


def of_models(objectives: list[str]) -> list[str]:
    """Pick the objectives that documents do not decide, each with a column of its own."""
    return [name for name in objectives if not objective_of(name).from_documents]


def header(objective: str) -> str:
    """Return the title of an objective's column."""
    return objective_of(objective).header or objective


def show_objective(entry: Entry, objective: str) -> str:
    """Write a model's value in an objective for people; empty where it is unknown."""
    value = entry.value(objective)
    return "" if value is None else objective_of(objective).show(value)


def _total(scores: Scores | None) -> float:
    return scores.total if scores else math.nan
