"""Leaderboards as JSON."""

import json
from typing import Any

from mergesearch.recipe import write_recipe
from mergesearch.report.entries import Entry, run_labels
from mergesearch.scores import Scores


def to_json(entries: list[Entry]) -> str:
    """Write all that is known of each model: scores, interval, recipe and hashes."""
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
                "models_differ": entry.differences,
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
