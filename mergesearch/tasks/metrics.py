"""The metric of a task that a suite means, with its filter and aggregation."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.api.task import Task

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.scores.aggregation import OWN_AGGREGATIONS
from mergesearch.tasks.suite import TaskSpec


def named_metric(spec: TaskSpec) -> tuple[str, str]:
    """Split what a spec names into the metric and the filter, or nothing."""
    metric, _, filter_name = (part.strip() for part in spec.metric.partition(","))
    return metric, filter_name


def filters_of(source: Task) -> list[str]:
    """List the names of a task's filters."""
    return [entry["name"] for entry in source.config.filter_list or [{"name": "none"}]]


def metric_and_filter(spec: TaskSpec, source: Task) -> tuple[str, str]:
    """Find the spec's metric and filter, where the task has them.

    Raises:
        InputError: it does not, or it has several filters and the spec names none.
    """
    metric, filter_name = named_metric(spec)
    where = f"task {spec.task!r}"
    if metric not in source.aggregation():
        raise InputError(f"{where}: " + unknown("metric", metric, source.aggregation()))
    return metric, chosen_filter(where, metric, filter_name, filters_of(source))


def chosen_filter(where: str, metric: str, named: str, filters: Sequence[str]) -> str:
    """Choose the filter that was named, or the only one.

    Raises:
        InputError: there is no such filter, or there are several and none was named.
    """
    if not named and len(filters) > 1:
        raise InputError(
            f"{where} has {len(filters)} filters, so a metric must name one; write metric: "
            f"{' or '.join(repr(f'{metric},{name}') for name in filters)}"
        )
    if named and named not in filters:
        raise InputError(f"{where}: " + unknown("filter", named, filters))
    return named or filters[0]


def better(source: Task, metric: str) -> bool:
    """Tell whether a higher value of a metric is better.

    Raises:
        InputError: the task does not say.
    """
    higher_is_better = source.higher_is_better().get(metric)
    if higher_is_better is None:
        raise InputError(
            f"task {source.task_name!r}: whether a higher {metric} is better must be known; "
            f"add 'higher_is_better' to its entry in the task's metric_list"
        )
    return bool(higher_is_better)


def aggregation_of(source: Task, metric: str) -> str:
    """Name a metric's aggregation as `aggregation_function` knows it."""
    function: Callable[[Sequence[Any]], float] = source.aggregation()[metric]
    for name, registered in AGGREGATION_REGISTRY.items():
        if registered is function:
            return name
    name = f"{source.task_name}.{metric}"
    OWN_AGGREGATIONS[name] = function
    return name
