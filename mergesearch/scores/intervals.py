"""Intervals of scores and of their differences: bootstraps over documents."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import InputError
from mergesearch.scores.aggregation import VECTORISED, Floats, aggregation_function
from mergesearch.scores.scores import Scores, TaskScore

#: Resamples where an aggregation runs document by document, as F1 and BLEU do.
_SLOW_RESAMPLES = 1_000

#: Confidence of an interval one standard error wide on either side, and of one two wide.
_ONE_SIGMA, _TWO_SIGMA = 0.6827, 0.95

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


@dataclass(frozen=True, eq=False)
class Resampled:
    """One candidate's total under a bootstrap over the documents of each task."""

    scores: Scores
    #: (resamples,).
    totals: Floats

    @property
    def interval(self) -> Interval:
        """The total with its 95 % interval: what `interval` says, digit for digit."""
        return _bounds(self.scores.total, self.totals, _TWO_SIGMA)

    def lead_over(self, other: "Resampled") -> Interval:
        """Return what `paired_difference` does, digit for digit.

        Raises:
            InputError: the two were not scored on the same tasks and documents.
        """
        _check_paired(self.scores, other.scores)
        if _drawn_from(self.scores) != _drawn_from(other.scores):
            return paired_difference(self.scores, other.scores)
        lead = self.scores.total - other.scores.total
        return _bounds(lead, self.totals - other.totals, _TWO_SIGMA)


def resampled(
    candidates: Sequence[Scores], *, n_resamples: int = 10_000, seed: int = 0
) -> list[Resampled | None]:
    """Resample totals; candidates on the same documents share what is drawn.

    Args:
        candidates: at least one task each.
        n_resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        One a candidate; None where a task's own aggregation is out of reach.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, scores in enumerate(candidates):
        alike.setdefault(_drawn_from(scores), []).append(number)
    results: list[Resampled | None] = [None] * len(candidates)
    for numbers in alike.values():
        group = [candidates[number] for number in numbers]
        try:
            totals = _resampled_totals(group, n_resamples, seed)
        except InputError:
            continue
        for number, scores, of in zip(numbers, group, totals, strict=True):
            results[number] = Resampled(scores, of)
    return results


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


def _drawn_from(scores: Scores) -> Hashable:
    """Name what is drawn from: alike for two candidates where one drawing serves both."""
    return tuple((task.id.aggregation, tuple(_defined([task]))) for task in scores.tasks)


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
    defined = _defined(tasks)
    statistics = _statistics(tasks, defined)
    blocks: list[list[Floats]] = [[] for _ in tasks]
    step = max(1, _BLOCK // len(defined))
    for start in range(0, n_resamples, step):
        drawn = generator.integers(
            len(defined), size=(min(step, n_resamples - start), len(defined)), dtype=np.int32
        )
        for block, values in zip(blocks, statistics(drawn), strict=True):
            block.append(values)
    return [np.concatenate(block) for block in blocks]


def _defined(tasks: Sequence[TaskScore]) -> list[int]:
    """List the documents on which a task's metric is defined, by position.

    One that it is not defined on for one candidate, it is not defined on for any.
    """
    values = zip(*(task.values for task in tasks), strict=True)
    return [i for i, of_document in enumerate(values) if None not in of_document]


def _statistics(
    tasks: Sequence[TaskScore], defined: Sequence[int]
) -> Callable[[NDArray[np.int32]], list[Floats]]:
    """Make the function from drawn documents to each candidate's values.

    Documents drawn are (resamples, documents).
    """
    values = [[task.documents[i].value for i in defined] for task in tasks]
    if all(task.id.aggregation == "mean" for task in tasks) and _sums_are_exact(values):
        table = np.array(values, dtype=np.float32).T  # (documents, candidates)
        return lambda drawn: list((_n_drawn(drawn) @ table).T.astype(float) / len(defined))
    each = [_statistic(task.id.aggregation, of) for task, of in zip(tasks, values, strict=True)]
    return lambda drawn: [statistic(drawn) for statistic in each]


def _sums_are_exact(values: Sequence[Sequence[Any]]) -> bool:
    """Say if any order of adding up in float32 gives the same: for accuracies."""
    try:
        table = np.abs(np.array(values, dtype=float))
    except (TypeError, ValueError):
        return False
    whole = table.ndim == 2 and bool(np.all(table == np.rint(table)))
    return whole and bool(table.max(initial=0) * table.shape[1] < 2**24)


def _n_drawn(drawn: NDArray[np.int32]) -> NDArray[np.float32]:
    """Count how often each document was drawn: (resamples, documents)."""
    n_resamples, n_documents = drawn.shape
    cells = drawn + np.arange(0, drawn.size, n_documents, dtype=np.int32)[:, None]
    counts = np.bincount(cells.ravel(), minlength=drawn.size)
    return counts.reshape(n_resamples, n_documents).astype(np.float32)


def _statistic(aggregation: str, values: Sequence[Any]) -> Callable[[NDArray[np.int32]], Floats]:
    """Make the function from drawn documents to one candidate's values.

    Documents drawn are (resamples, documents).
    """
    if aggregation in VECTORISED:
        vectorised, table = VECTORISED[aggregation], np.asarray(values, dtype=float)
        return lambda drawn: vectorised(table[drawn])
    aggregate = aggregation_function(aggregation)
    return lambda drawn: np.array([aggregate([values[i] for i in row]) for row in drawn])


def _bounds(value: float, resampled: Floats, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
