"""Scores as a table of lm-eval's columns, groups above tasks, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mergesearch.scores import Interval, Scores, TaskScore, interval
from mergesearch.tasks.built import BuiltTask
from mergesearch.tasks.groups import aggregate_of
from mergesearch.tasks.results import groups_of


@dataclass(frozen=True)
class ResultRow:
    """One task or group of a table of results."""

    #: Groups that this is within.
    depth: int
    alias: str
    version: str
    filter: str
    n_shot: str
    metric: str
    #: None where the tasks of a group do not agree.
    higher_is_better: bool | None
    value: float
    #: None where lm-eval has none for the aggregation.
    stderr: float | None
    #: Of the value, by a bootstrap over the documents of each task.
    interval: Interval


def rows_of(
    results: Mapping[str, Any], scores: Scores, tasks: Sequence[BuiltTask]
) -> tuple[ResultRow, ...]:
    """Order rows as lm-eval does: groups with what they hold, then single tasks.

    Args:
        results: from `results_json`, of the scores and the tasks.
        scores: of the tasks, in their order.
        tasks: as built.
    """
    intervals = _intervals(results["results"], scores, tasks)
    return tuple(
        _row(results, name, depth, intervals[name])
        for name, depth in _ordered(results)
        if name in intervals
    )


def _row(results: Mapping[str, Any], name: str, depth: int, of_value: Interval) -> ResultRow:
    metrics = results["results"][name]
    key = next(key for key in metrics if "," in key and "_stderr," not in key)
    metric, _, filter_name = key.partition(",")
    stderr = metrics[f"{metric}_stderr,{filter_name}"]
    return ResultRow(
        depth=depth,
        alias=metrics["alias"],
        version=str(results["versions"][name]),
        filter=filter_name,
        n_shot=str(results["n-shot"].get(name, "")),
        metric=metric,
        higher_is_better=results["higher_is_better"][name][metric],
        value=metrics[key],
        stderr=None if stderr == "N/A" else stderr,
        interval=of_value,
    )


def _ordered(results: Mapping[str, Any]) -> list[tuple[str, int]]:
    """List groups and tasks as lm-eval's tables do, with how deep they are."""
    children: Mapping[str, Sequence[str]] = results["group_subtasks"]
    within = {child for names in children.values() for child in names}
    depths: dict[str, int] = {}

    def visit(name: str, depth: int) -> None:
        depths[name] = depth
        for child in sorted(children.get(name, ())):
            visit(child, depth + 1)

    for name in sorted(children.keys() - within):
        visit(name, 0)
    for name in sorted(results["results"].keys() - depths.keys()):
        visit(name, 0)
    return [(name, depth) for name, depth in depths.items() if name in results["results"]]


def _intervals(
    metrics: Mapping[str, Any], scores: Scores, tasks: Sequence[BuiltTask]
) -> dict[str, Interval]:
    """Bound each task's value, and each group's that has one."""
    by_name = {score.id.task: score for score in scores.tasks}
    intervals = {name: _own_interval([score]) for name, score in by_name.items()}
    for task in tasks:
        key = f"{task.id.metric},{task.id.filter}"
        spec = task.spec.model_copy(update={"metric": key})
        for name, group in groups_of([task]).items():
            if name in intervals or key not in metrics[name]:
                continue
            aggregate = aggregate_of(group, spec)
            shares = aggregate.shares({n: len(by_name[n].doc_ids) for n in aggregate.counts})
            intervals[name] = _own_interval(
                [replace(by_name[member], weight=share) for member, share in shares.items()]
            )
    return intervals


def _own_interval(scores: Sequence[TaskScore]) -> Interval:
    """Bound a metric, rather than a total, in which higher is better."""
    bounds = interval(Scores(tuple(scores)))
    if scores[0].id.higher_is_better:
        return bounds
    return Interval(-bounds.value, -bounds.high, -bounds.low)
