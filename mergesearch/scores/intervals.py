"""Intervals of scores and of their differences: bootstraps over documents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import InputError
from mergesearch.scores.aggregation import VECTORISED, Floats, aggregation_function
from mergesearch.scores.scores import Scores, TaskScore

#: Resamples where an aggregation runs document by document, as F1 and BLEU do.
_SLOW_RESAMPLES = 1_000

#: Confidence of an interval one standard error wide on either side.
_ONE_SIGMA = 0.6827

#: Random indices drawn at a time.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def interval(
    scores: Scores, *, n_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Bound the total of one candidate, by a bootstrap over each task's documents.

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
    """Bound the total of `a` minus that of `b`, by a paired bootstrap over documents.

    Both candidates answered the same documents, so a resample draws documents and takes both
    candidates' values on them: what makes a document hard for both cancels. Where one of them was
    stopped early, pair it with `other.on(stopped)`.

    Args:
        a: one candidate.
        b: another, on the same tasks and documents.
        n_resamples: bootstrap resamples.
        seed: of the resampling: the same seed gives the same bounds.
        confidence: of the interval, in (0, 1).

    Raises:
        InputError: the two were not scored on the same tasks and documents.
    """
    _check_paired(a, b)
    ours_totals, theirs_totals = _resampled_totals([a, b], n_resamples, seed)
    return _bounds(a.total - b.total, ours_totals - theirs_totals, confidence)


def paired_lead(part: Scores, whole: Scores) -> tuple[float, float]:
    """Estimate the lead of one candidate over another, which was scored on more.

    The error is that of the lead on all documents, of which these are a sample without replacement:
    it is nothing where all were scored. In closed form where every task's value is a mean, which is
    quick enough to be asked after each block of documents; by `paired_difference` where one is not.

    Args:
        part: a candidate on some documents of each task.
        whole: another, on all.

    Returns:
        The lead in `total`, and its standard error; infinite where one document of several says
        nothing of how a task's documents vary.

    Raises:
        InputError: the two were not scored on the same tasks.
    """
    same = whole.on(part)
    _check_paired(part, same)
    if any(task.id.aggregation != "mean" for task in part.tasks):
        bounds = paired_difference(part, same, n_resamples=_SLOW_RESAMPLES, confidence=_ONE_SIGMA)
        left = 1 - part.n_documents / whole.n_documents
        return bounds.value, (bounds.high - bounds.low) / 2 * math.sqrt(left)
    variance = sum(
        ours.weight**2 * _variance(ours, theirs, len(of.doc_ids))
        for ours, theirs, of in zip(part.tasks, same.tasks, whole.tasks, strict=True)
    )
    error = math.sqrt(variance) / sum(task.weight for task in part.tasks)
    return part.total - same.total, error


def _variance(ours: TaskScore, theirs: TaskScore, n_documents: int) -> float:
    """Estimate the variance of a task's mean lead on part of so many documents."""
    left = 1 - len(ours.doc_ids) / n_documents
    if left == 0:
        return 0.0
    pairs = [p for p in zip(ours.values, theirs.values, strict=True) if None not in p]
    if len(pairs) < 2:
        return math.inf
    values = np.array(pairs, dtype=float)
    return float((values[:, 0] - values[:, 1]).var(ddof=1)) / len(pairs) * left


def _check_paired(a: Scores, b: Scores) -> None:
    """Refuse candidates that were scored on other documents than one another."""
    for ours, theirs in zip(a.tasks, b.tasks, strict=False):
        pair = [(task.id.task, task.id.fingerprint, task.doc_ids) for task in (ours, theirs)]
        if pair[0] != pair[1]:
            raise InputError(
                f"only scores of the same documents can be paired, but {ours.id.task!r} "
                f"({len(ours.doc_ids)} documents) and {theirs.id.task!r} ({len(theirs.doc_ids)} "
                f"documents) differ in task, prompts or documents; score both again"
            )
    if len(a.tasks) != len(b.tasks):
        raise InputError(
            f"only scores of the same tasks can be paired, got {len(a.tasks)} and "
            f"{len(b.tasks)} tasks; score both on one suite"
        )


def _resampled_totals(candidates: Sequence[Scores], n_resamples: int, seed: int) -> list[Floats]:
    """Resample totals, (resamples,) each; all candidates see the same documents drawn."""
    generator = np.random.default_rng(seed)
    if any(task.id.aggregation not in VECTORISED for task in candidates[0].tasks):
        n_resamples = min(n_resamples, _SLOW_RESAMPLES)
    per_task = [
        _resampled_values(tasks, n_resamples, generator)
        for tasks in zip(*(scores.tasks for scores in candidates), strict=True)
    ]
    return [
        _total(scores, values)
        for scores, values in zip(candidates, zip(*per_task, strict=True), strict=True)
    ]


def _total(scores: Scores, values: Sequence[Floats]) -> Floats:
    """Total tasks' values under resampling as `Scores.total`, (resamples,)."""
    signed = [
        task.weight * (value if task.id.higher_is_better else -value)
        for task, value in zip(scores.tasks, values, strict=True)
    ]
    return np.sum(signed, axis=0) / sum(task.weight for task in scores.tasks)


def _resampled_values(
    tasks: Sequence[TaskScore], n_resamples: int, generator: np.random.Generator
) -> list[Floats]:
    """Resample one task's value, (resamples,) for each candidate."""
    # a metric that is not defined on a document is not defined on it for any candidate
    defined = [
        i
        for i, values in enumerate(zip(*(task.values for task in tasks), strict=True))
        if None not in values
    ]
    statistics = [_statistic(task, defined) for task in tasks]
    blocks: list[list[Floats]] = [[] for _ in tasks]
    step = max(1, _BLOCK // len(defined))
    for start in range(0, n_resamples, step):
        drawn = generator.integers(
            len(defined), size=(min(step, n_resamples - start), len(defined)), dtype=np.int32
        )
        for block, statistic in zip(blocks, statistics, strict=True):
            block.append(statistic(drawn))
    return [np.concatenate(block) for block in blocks]


def _statistic(task: TaskScore, defined: Sequence[int]) -> Callable[[NDArray[np.int32]], Floats]:
    """Make the function from drawn documents, (resamples, documents), to values."""
    values = [task.documents[i].value for i in defined]
    if task.id.aggregation in VECTORISED:
        vectorised, table = VECTORISED[task.id.aggregation], np.asarray(values, dtype=float)
        return lambda drawn: vectorised(table[drawn])
    aggregate = aggregation_function(task.id.aggregation)
    return lambda drawn: np.array([aggregate([values[i] for i in row]) for row in drawn])


def _bounds(value: float, resampled: Floats, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
