"""Runs whose scores are written by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mergesearch.recipe import ModelRef, soup_recipe
from mergesearch.runs import LeaderboardRow, Record, SuiteEntry, TaskEntry, TrialRecord, hold
from mergesearch.scores import DocumentScore, TaskId

#: A model's label, role, and its score on each document of the two splits, if it was scored there.
Model = tuple[str, str, Sequence[float] | None, Sequence[float] | None]


def make_run(
    folder: Path,
    models: Sequence[Model],
    *,
    higher_is_better: bool = True,
    sizes: Mapping[str, int] | None = None,
    search: Mapping[str, Any] | None = None,
    objectives: bool = False,
) -> Path:
    """A run with one task a split, its models all different; the first ones are trials too.

    Args:
        folder: of the run.
        models: in the record's order.
        higher_is_better: in both tasks.
        sizes: numbers of parameters by labels.
        search: what the run's space says of the search.
        objectives: each trial has its value in everything that is searched for.
    """
    splits = {"search_full": ("dev", [dev for _, _, dev, _ in models if dev is not None])}
    if any(test is not None for *_, test in models):
        splits["held_out"] = ("test", [test for *_, test in models if test is not None])
    suite = SuiteEntry(
        {
            split: (task(name, len(scored[0]) if scored else 1, higher_is_better),)
            for split, (name, scored) in splits.items()
        }
    )
    wanted = (search or {}).get("objectives", ()) if objectives else ()
    with hold(folder, {"space": {"search": search} if search else {}}):
        record = Record(folder)
        record.set_suite(suite)
        for number, (label, role, dev, test) in enumerate(models):
            (folder.parent / "models" / label).mkdir(parents=True, exist_ok=True)
            ref = ModelRef.model_validate(str(folder.parent / "models" / label))
            recipe = soup_recipe([ref])
            record.add_candidate(recipe, f"digest of {label}", (sizes or {}).get(label))
            for name, values in (("dev", dev), ("test", test)):
                if values is not None:
                    scores = {i: DocumentScore(value) for i, value in enumerate(values)}
                    record.documents.add(f"digest of {label}", f"f-{name}", scores)
            if dev is not None:
                mean = sum(dev) / len(dev)
                size = (sizes or {}).get(label, 1)
                reached = {n: float(size) if n == "size" else mean for n in wanted}
                trial = TrialRecord(number, "linear", recipe.hash, mean, objectives=reached)
                record.add_trial(trial)
            record.add_row(LeaderboardRow(label, role, recipe.hash))
    return folder


def task(name: str, n_documents: int, higher_is_better: bool = True) -> TaskEntry:
    return TaskEntry(
        TaskId(name, "acc", "none", higher_is_better, "mean", fingerprint=f"f-{name}"),
        weight=1.0,
        n_documents=n_documents,
    )


def right(n: int, of: int = 100) -> list[float]:
    """The first n of so many documents answered rightly."""
    return [1.0] * n + [0.0] * (of - n)
