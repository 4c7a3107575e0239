"""Runs whose scores are written by hand."""

from collections.abc import Sequence
from pathlib import Path

from mergesearch.evaluation import TaskScore
from mergesearch.recipe import ModelRef
from mergesearch.runs import Record, Row, TrialEntry, hold
from mergesearch.soups import soup_recipe

#: A model's label, role, and its score on each document of the two splits, if it was scored there.
Model = tuple[str, str, Sequence[float] | None, Sequence[float] | None]


def make_run(folder: Path, models: Sequence[Model], *, higher_is_better: bool = True) -> Path:
    """A run with one task a split, its models all different; the first ones are trials too."""
    tasks = {"search_full": {"dev": "f-dev"}, "held_out": {"test": "f-test"}}
    if all(held_out is None for *_, held_out in models):
        del tasks["held_out"]
    weights = {split: {task: 1.0 for task in names} for split, names in tasks.items()}
    with hold(folder, {"space": {}, "tasks": tasks, "weights": weights}):
        record = Record(folder)
        for number, (label, role, dev, test) in enumerate(models):
            (folder.parent / "models" / label).mkdir(parents=True, exist_ok=True)
            ref = ModelRef.model_validate(str(folder.parent / "models" / label))
            recipe = soup_recipe([ref])
            record.add_candidate(recipe, f"digest of {label}")
            for task, values in (("dev", dev), ("test", test)):
                if values is not None:
                    record.add_score(f"digest of {label}", score(task, values, higher_is_better))
            if dev is not None:
                mean = sum(dev) / len(dev)
                record.add_trial(TrialEntry(number, "linear", recipe.hash, mean))
            record.add_row(Row(label, role, recipe.hash))
    return folder


def score(task: str, values: Sequence[float], higher_is_better: bool = True) -> TaskScore:
    return TaskScore(
        task=task,
        metric="acc",
        filter="none",
        higher_is_better=higher_is_better,
        weight=1.0,
        aggregation="mean",
        fingerprint=f"f-{task}",
        doc_ids=tuple(range(len(values))),
        values=tuple(values),
        value=sum(values) / len(values),
        stderr=None,
    )


def right(n: int, of: int = 100) -> list[float]:
    """The first n of so many documents answered rightly."""
    return [1.0] * n + [0.0] * (of - n)
