"""Groups of tasks as lm-eval aggregates them, with the weights of the tasks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lm_eval.api.group import Group

from mergesearch.errors import InputError
from mergesearch.tasks.metrics import chosen_filter, filters_of, named_metric
from mergesearch.tasks.suite import TaskSpec


@dataclass(frozen=True)
class Aggregate:
    """One metric of a group: the mean of its tasks, weighed by their documents or not."""

    metric: str
    filter: str
    weight_by_size: bool
    #: Tasks that have the metric; what several subgroups hold counts several times.
    counts: Mapping[str, int]
    #: Tasks that do not have it, and do not count.
    missing: tuple[str, ...]

    def shares(self, n_documents: Mapping[str, int]) -> dict[str, float]:
        """Weigh each task, 1 in all.

        Args:
            n_documents: of each task, those that are scored.
        """
        sizes = {
            name: count * (n_documents[name] if self.weight_by_size else 1)
            for name, count in self.counts.items()
        }
        return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def aggregate_of(group: Group, spec: TaskSpec) -> Aggregate:
    """Find the metric that a spec names, as its group aggregates it.

    Raises:
        InputError: the group does not aggregate it, or several filters' and the spec names none.
    """
    metric, named = named_metric(spec)
    where = f"group {spec.task!r}"
    entries = [entry for entry in group.aggregate_metric_list or () if entry.metric == metric]
    if not entries:
        has = ", ".join(dict.fromkeys(e.metric for e in group.aggregate_metric_list or ()))
        raise InputError(
            f"{where} does not aggregate {metric!r} (aggregate_metric_list: {has or 'none'}), so "
            f"it has no such score; list its members instead: {', '.join(group.child_names)}"
        )
    tasks = group.get_all_tasks()
    with_metric = [task for task in tasks if metric in task.aggregation()]
    present = sorted({name for task in with_metric for name in filters_of(task)})
    listed = [name for e in entries for name in present if name in (e.filter_list or present)]
    if not listed:
        raise InputError(
            f"{where}: none of its tasks has {metric!r} by a filter of its aggregate_metric_list; "
            f"list its members instead: {', '.join(group.child_names)}"
        )
    filter_name = chosen_filter(where, metric, named, list(dict.fromkeys(listed)))
    # where two entries give the same value, lm-eval keeps that of the last
    entry = [e for e in entries if filter_name in (e.filter_list or present)][-1]
    counts = Counter(task.task_name for task in with_metric if filter_name in filters_of(task))
    missing = sorted({task.task_name for task in tasks} - counts.keys())
    return Aggregate(metric, filter_name, entry.weight_by_size, counts, tuple(missing))
