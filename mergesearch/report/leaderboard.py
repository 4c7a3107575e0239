"""Leaderboards as tables and data."""

import json
import math
from typing import Any

import pandas as pd

from mergesearch.objectives import OBJECTIVES, SCORE, objective_of
from mergesearch.recipe import write_recipe
from mergesearch.report.entries import Entry, caution, run_labels
from mergesearch.scores import Scores

FORMATS = ("md", "csv", "json")
#: The columns of every table; sizes, tasks and groups of tasks come before the last.
_FIXED = ("run", "model", "method", "search", "held_out", "low", "high", "recipe")


def leaderboard(entries: list[Entry], form: str = "md") -> str:
    """A leaderboard in one of `FORMATS`."""
    writers = {"md": markdown, "csv": csv, "json": to_json}
    return writers[form](entries)


def table(entries: list[Entry]) -> pd.DataFrame:
    """One row a model: its method, and its scores on both splits, in all and by task.

    Columns: run, model, method, search, held_out, low and high (the 95 % interval of the deciding
    score), parameters where models differ in their number or a search had the size for an
    objective, one column a task, one for each group of tasks that is an objective, and recipe (the
    hash's first twelve digits). What was not scored is NaN. A `*` ends the names of columns that a
    search on a benchmark's test set has spoiled.
    """
    return _table(entries).rename(columns=heads(entries))


def heads(entries: list[Entry]) -> dict[str, str]:
    """The names of the columns of totals, each with a `*` where one of its numbers is spoiled."""
    held_out = any(entry.is_spoiled(entry.held_out) for entry in entries)
    deciding = any(entry.is_spoiled(entry.deciding) for entry in entries)
    spoiled = {
        "search": any(entry.is_spoiled(entry.search) for entry in entries),
        **dict.fromkeys(("held_out", "held-out"), held_out),
        **dict.fromkeys(("low", "high", "95 % interval"), deciding),
    }
    return {name: name + "*" * is_spoiled for name, is_spoiled in spoiled.items()}


def further_objectives(entries: list[Entry]) -> list[str]:
    """List what has a column beside the total: objectives, and what models differ in, as size."""
    names = {name: None for entry in entries for name in entry.objectives if name != SCORE}
    for name in (name for name in OBJECTIVES if not OBJECTIVES[name].from_documents):
        if len({entry.value(name) for entry in entries} - {None}) > 1:
            names[name] = None
    return list(names)


def header(objective: str) -> str:
    """Return the title of an objective's column."""
    return objective_of(objective).header or objective


def show_objective(entry: Entry, objective: str) -> str:
    """Write a model's value in an objective for people; empty where it is unknown."""
    value = entry.value(objective)
    return "" if value is None else objective_of(objective).show(value)


def _table(entries: list[Entry]) -> pd.DataFrame:
    """The table with the names of its totals' columns unmarked."""
    labels, further, rows = run_labels(entries), further_objectives(entries), []
    of_models = _of_models(further)
    for entry in entries:
        bounds = entry.interval
        row: dict[str, Any] = {
            "run": labels[entry.run],
            "model": entry.label,
            "method": entry.recipe.merge_method,
            "search": _total(entry.search),
            "held_out": _total(entry.held_out),
            "low": bounds.low if bounds else math.nan,
            "high": bounds.high if bounds else math.nan,
        }
        row |= {header(name): entry.value(name) for name in of_models}
        for scores in (entry.search, entry.held_out):
            for task in scores.tasks if scores else ():
                name = task.id.task
                row[f"{name} {task.id.metric}" + "*" * (name in entry.spoiled)] = task.value
        tasks = {task.id.task for task in entry.search.tasks} if entry.search else set()
        for group in (name for name in further if name not in {*tasks, *of_models}):
            row[group + "*" * entry.is_spoiled(entry.part(group))] = entry.value(group)
        rows.append({**row, "recipe": entry.recipe.hash[:12]})
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=_FIXED)
    for name in (name for name in of_models if objective_of(name).whole):
        frame[header(name)] = frame[header(name)].astype("Int64")  # also where one is unknown
    return frame[[c for c in frame.columns if c != "recipe"] + ["recipe"]]


def markdown(entries: list[Entry]) -> str:
    """A table for people; the winner in bold, the run named where there are several.

    What its `*` mean, if there are any, stands below it.
    """
    frame = _table(entries)
    if frame.empty:
        return "No models yet."
    bounds = [
        "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"
        for low, high in zip(frame["low"], frame["high"], strict=True)
    ]
    frame["95 % interval"] = bounds
    lead = ["model", "method", "search", "held_out", "95 % interval"]
    for name in _of_models(further_objectives(entries)):
        frame[header(name)] = [show_objective(entry, name) for entry in entries]
    if len(run_labels(entries)) > 1:
        lead = ["run", *lead]
    tasks = [c for c in frame.columns if c not in {*lead, "run", "low", "high", "recipe"}]
    shown = frame[[*lead, *tasks, "recipe"]].rename(columns={"held_out": "held-out"})
    shown["model"] = [f"**{e.label}**" if e.role == "winner" else e.label for e in entries]
    shown = shown.rename(columns=heads(entries))
    formatted = shown.map(lambda value: f"{value:.3f}" if isinstance(value, float) else value)
    text = formatted.replace("nan", "").to_markdown(index=False, disable_numparse=True)
    return f"{text}\n\n`*` {note}" if (note := caution(entries)) else text


def csv(entries: list[Entry]) -> str:
    """The table in full precision."""
    return table(entries).to_csv(index=False)


def to_json(entries: list[Entry]) -> str:
    """Everything a row stands for: scores by task with intervals, the recipe and its hashes."""
    labels, rows = run_labels(entries), []
    for entry in entries:
        bounds = entry.interval
        rows.append(
            {
                "run": labels[entry.run],
                "model": entry.label,
                "role": entry.role,
                "recipe_hash": entry.recipe.hash,
                "tensors_xxh3": entry.digest,
                "n_parameters": entry.n_parameters,
                "objectives": {name: entry.value(name) for name in entry.objectives},
                "broken_constraints": entry.broken,
                "recipe": write_recipe(entry.recipe, entry.run),
                "search": _details(entry, entry.search),
                "held_out": _details(entry, entry.held_out),
                "interval_95": [bounds.low, bounds.high] if bounds else None,
            }
        )
    return json.dumps(rows, indent=2)


def _details(entry: Entry, scores: Scores | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    tasks = {
        t.id.task: {
            "metric": t.id.metric,
            "value": t.value,
            "stderr": t.stderr,
            "n_documents": len(t.doc_ids),
            "higher_is_better": t.id.higher_is_better,
            "weight": t.weight,
            "searched_on_benchmark": entry.spoiled.get(t.id.task),
        }
        for t in scores.tasks
    }
    return {"total": scores.total, "tasks": tasks}


def _of_models(objectives: list[str]) -> list[str]:
    """Pick the objectives that documents do not decide, each with a column of its own."""
    return [name for name in objectives if not objective_of(name).from_documents]


def _total(scores: Scores | None) -> float:
    return scores.total if scores else math.nan
