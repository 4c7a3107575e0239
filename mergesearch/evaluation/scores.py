"""What a candidate scored, document by document, and how sure a comparison of two is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import InputError

Floats = NDArray[np.float64]


def _weighted_mean(values: Floats) -> Floats:
    return values[..., 0].sum(-1) / values[..., 1].sum(-1)


#: lm-eval's aggregations that numpy computes for many resamples at once. Values have shape
#: (resamples, documents), or (resamples, documents, 2) where a value is a (sum, weight) pair.
_VECTORISED: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda values: values.mean(-1),
    "perplexity": lambda values: np.exp(-values.mean(-1)),
    "weighted_perplexity": lambda values: np.exp(-_weighted_mean(values)),
    "bits_per_byte": lambda values: -_weighted_mean(values) / math.log(2),
}

#: Aggregation functions of tasks that bring their own, filled in as they are built.
OWN_AGGREGATIONS: dict[str, Callable[[Sequence[Any]], float]] = {}

#: Resamples where an aggregation runs document by document, as F1 and BLEU do.
_SLOW_RESAMPLES = 1_000

#: Random indices drawn at a time.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class TaskScore:
    """One candidate on one task."""

    task: str
    metric: str
    filter: str
    higher_is_better: bool
    weight: float
    #: Name of the aggregation: lm-eval's, or one in `OWN_AGGREGATIONS`.
    aggregation: str
    #: Of the task as built: equal where scores may be compared or reused.
    fingerprint: str
    doc_ids: tuple[int, ...]
    #: One value a document: a number, or a list of what the aggregation takes.
    values: tuple[Any, ...]
    value: float
    stderr: float | None

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes and `from_json` reads back."""
        return {**asdict(self), "doc_ids": list(self.doc_ids), "values": list(self.values)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The score that `to_json` wrote."""
        return cls(**{**data, "doc_ids": tuple(data["doc_ids"]), "values": tuple(data["values"])})


@dataclass(frozen=True)
class Scores:
    """One candidate on the tasks of a split."""

    tasks: tuple[TaskScore, ...]

    @property
    def total(self) -> float:
        """Weighted mean of the task values, negated where lower is better: higher is better."""
        return float(_total(self, [np.asarray(task.value) for task in self.tasks]))


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def interval(
    scores: Scores, *, n_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The total of one candidate, with a bootstrap over the documents of each task.

    Args:
        scores: at least one task.
        n_resamples: bootstrap resamples.
        seed: of the resampling: the same seed gives the same bounds.
        confidence: of the interval, in (0, 1).
    """
    (totals,) = _resampled_totals([scores], n_resamples, seed)
    return _bounds(scores.total, totals, confidence)


def paired_difference(
    a: Scores, b: Scores, *, n_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The total of `a` minus that of `b`, with a paired bootstrap over the documents of each task.

    Both candidates answered the same documents, so a resample draws documents and takes both
    candidates' values on them: what makes a document hard for both cancels.

    Args:
        a: one candidate.
        b: another, on the same tasks and documents.
        n_resamples: bootstrap resamples.
        seed: of the resampling: the same seed gives the same bounds.
        confidence: of the interval, in (0, 1).

    Raises:
        InputError: the two were not scored on the same tasks and documents.
    """
    for ours, theirs in zip(a.tasks, b.tasks, strict=False):
        if (ours.task, ours.fingerprint, ours.doc_ids) != (
            theirs.task,
            theirs.fingerprint,
            theirs.doc_ids,
        ):
            raise InputError(
                f"only scores of the same documents can be paired, but {ours.task!r} "
                f"({len(ours.doc_ids)} documents) and {theirs.task!r} ({len(theirs.doc_ids)} "
                f"documents) differ in task, prompts or documents; score both again"
            )
    if len(a.tasks) != len(b.tasks):
        raise InputError(
            f"only scores of the same tasks can be paired, got {len(a.tasks)} and "
            f"{len(b.tasks)} tasks; score both on one suite"
        )
    ours_totals, theirs_totals = _resampled_totals([a, b], n_resamples, seed)
    return _bounds(a.total - b.total, ours_totals - theirs_totals, confidence)


def aggregation_function(name: str) -> Callable[[Sequence[Any]], float]:
    """The aggregation of that name: lm-eval's, or a task's own.

    Raises:
        InputError: it is a task's own, and that task is not built in this process.
    """
    from lm_eval.api import metrics  # noqa: F401  registers the aggregations
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    if name in OWN_AGGREGATIONS:
        return OWN_AGGREGATIONS[name]
    if name not in AGGREGATION_REGISTRY:
        raise InputError(
            f"the aggregation {name!r} is a task's own function, so its scores can be resampled "
            f"only where that task is built; build its suite first"
        )
    return AGGREGATION_REGISTRY[name]


def _total(scores: Scores, values: Sequence[Floats]) -> Floats:
    """Weighted mean over tasks of their values, of any one shape, higher is better."""
    signed = [
        task.weight * (value if task.higher_is_better else -value)
        for task, value in zip(scores.tasks, values, strict=True)
    ]
    return np.sum(signed, axis=0) / sum(task.weight for task in scores.tasks)


def _resampled_totals(candidates: Sequence[Scores], n_resamples: int, seed: int) -> list[Floats]:
    """Totals under resampling, (resamples,) each; all candidates see the same documents drawn."""
    generator = np.random.default_rng(seed)
    if any(task.aggregation not in _VECTORISED for task in candidates[0].tasks):
        n_resamples = min(n_resamples, _SLOW_RESAMPLES)
    per_task = [
        _resampled_values(tasks, n_resamples, generator)
        for tasks in zip(*(scores.tasks for scores in candidates), strict=True)
    ]
    return [
        _total(scores, values)
        for scores, values in zip(candidates, zip(*per_task, strict=True), strict=True)
    ]


def _resampled_values(
    tasks: Sequence[TaskScore], n_resamples: int, generator: np.random.Generator
) -> list[Floats]:
    """One task's value under resampling, (resamples,) for each candidate."""
    n_documents = len(tasks[0].doc_ids)
    statistics = [_statistic(task) for task in tasks]
    blocks: list[list[Floats]] = [[] for _ in tasks]
    step = max(1, _BLOCK // n_documents)
    for start in range(0, n_resamples, step):
        drawn = generator.integers(
            n_documents, size=(min(step, n_resamples - start), n_documents), dtype=np.int32
        )
        for block, statistic in zip(blocks, statistics, strict=True):
            block.append(statistic(drawn))
    return [np.concatenate(block) for block in blocks]


def _statistic(task: TaskScore) -> Callable[[NDArray[np.int32]], Floats]:
    """From the documents drawn, (resamples, documents), to the task's value under each resample."""
    if task.aggregation in _VECTORISED:
        vectorised, table = _VECTORISED[task.aggregation], np.asarray(task.values, dtype=float)
        return lambda drawn: vectorised(table[drawn])
    aggregate = aggregation_function(task.aggregation)
    return lambda drawn: np.array([aggregate([task.values[i] for i in row]) for row in drawn])


def _bounds(value: float, resampled: Floats, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
