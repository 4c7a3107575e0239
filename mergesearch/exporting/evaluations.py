"""Held-out scores as the hub reads them: in the card, and in files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from mergesearch.scores import Scores, TaskScore, resampled

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from mergesearch.report import Entry

#: Where the hub looks for results on data sets of its own, a YAML file each.
RESULTS_FOLDER = ".eval_results"
#: As the hub spells it in a card, of models that continue a text.
_TASK_TYPE = "text-generation"


def metadata_of(entry: "Entry") -> dict[str, Any]:
    """Give the metadata of a card that says how a model did on held-out.

    That is a result for each task, and one for the suite's total. A model that was not scored there
    has none, and tasks have none whose benchmark was searched on.
    """
    results = list(_results(entry))
    if not results:
        return {}
    return {"model_name": entry.label, "eval_results": results}


def result_files(entry: "Entry") -> dict[str, str]:
    """Write the results on data sets of the hub, by file of `.eval_results/`."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    by_file: dict[str, list[EvalResultEntry]] = {}
    for task in _tasks(entry):
        if (found := entry.datasets.get(task.id.task)) is None:
            continue
        dataset, subset = found
        result = EvalResultEntry(
            dataset_id=dataset,
            task_id=subset or "default",
            value=task.value,
            notes=f"{task.id.task} of lm-eval, {_described(task)}",
        )
        by_file.setdefault(f"{dataset.replace('/', '--')}.yaml", []).append(result)
    return {
        file: yaml.safe_dump(eval_result_entries_to_yaml(results), sort_keys=False)
        for file, results in by_file.items()
    }


def _results(entry: "Entry") -> Iterator["EvalResult"]:
    from huggingface_hub import EvalResult

    tasks = _tasks(entry)
    for task in tasks:
        dataset, subset = entry.datasets.get(task.id.task) or (task.id.task, None)
        yield EvalResult(
            task_type=_TASK_TYPE,
            task_name="held-out",
            dataset_type=dataset,
            dataset_name=task.id.task,
            dataset_config=subset,
            metric_type=task.id.metric,
            metric_name=f"{task.id.metric}, held-out",
            metric_value=task.value,
            metric_args={
                "interval_95": _interval(task),
                "documents": len(task.doc_ids),
                "fingerprint": task.id.fingerprint,
            },
        )
    if len(tasks) > 1 and entry.interval is not None and not entry.is_spoiled(entry.held_out):
        yield EvalResult(
            task_type=_TASK_TYPE,
            task_name="held-out",
            dataset_type="suite",
            dataset_name=f"weighted mean of {len(tasks)} tasks",
            metric_type="score",
            metric_name="score, held-out",
            metric_value=entry.interval.value,
            metric_args={"interval_95": [entry.interval.low, entry.interval.high]},
        )


def _tasks(entry: "Entry") -> tuple[TaskScore, ...]:
    """List the held-out scores that are an estimate of ability."""
    scored = entry.held_out.tasks if entry.held_out else ()
    return tuple(task for task in scored if task.id.task not in entry.spoiled)


def _interval(task: TaskScore) -> list[float] | None:
    """Give the 95 % interval of a task's value; None where there is none."""
    sign = 1 if task.id.higher_is_better else -1  # totals are of what is to grow
    (drawn,) = resampled([Scores((task,))])
    if drawn is None:
        return None
    return sorted(sign * bound for bound in (drawn.interval.low, drawn.interval.high))


def _described(task: TaskScore) -> str:
    bounds = _interval(task)
    interval = f", 95 % interval {bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""
    return (
        f"{task.id.metric} on {len(task.doc_ids)} documents{interval}, fingerprint "
        f"{task.id.fingerprint[:12]}"
    )
