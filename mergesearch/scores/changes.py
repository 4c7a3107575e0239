"""Documents on which one model does better than another, and by how much."""

from dataclasses import dataclass
from typing import Any

from mergesearch.scores.scores import Scores, TaskScore

#: Aggregations whose documents have log-likelihoods: more is better, whatever the metric's name.
_OF_LIKELIHOODS = frozenset({"perplexity", "weighted_perplexity", "bits_per_byte"})


@dataclass(frozen=True)
class Change:
    """One document on which two models were scored."""

    task: str
    doc_id: int
    #: By how much the first model is better, in the metric; negative where it is worse.
    value: float
    #: The same in margins; None where documents have none.
    margin: float | None

    @property
    def size(self) -> tuple[float, float]:
        """The size of the change, for sorting: by value, of equals by margin."""
        return abs(self.value), abs(self.margin or 0.0)


def changes(ours: TaskScore, theirs: TaskScore) -> list[Change]:
    """Compare two models on a task, document by document.

    Documents are left out that only one was scored on, and those whose value is no number.

    >>> from mergesearch import TaskId
    >>> from mergesearch.scores import DocumentScore, TaskScore, changes, summary
    >>> sums = TaskId("sums", "acc", "none", True, "mean", fingerprint="4fe1")
    >>> right, wrong = DocumentScore(1.0, 0.5), DocumentScore(0.0, -0.25)
    >>> ours = TaskScore(sums, 1.0, **summary("mean", {0: right, 1: right}))
    >>> theirs = TaskScore(sums, 1.0, **summary("mean", {0: wrong, 1: right}))
    >>> [(change.doc_id, change.value, change.margin) for change in changes(ours, theirs)]
    [(0, 1.0, 0.75), (1, 0.0, 0.0)]
    """
    upwards = ours.id.higher_is_better or ours.id.aggregation in _OF_LIKELIHOODS
    sign = 1 if upwards else -1
    others = dict(zip(theirs.doc_ids, theirs.documents, strict=True))
    found = []
    for doc_id, our in zip(ours.doc_ids, ours.documents, strict=True):
        their = others.get(doc_id)
        a, b = _number(our.value), _number(their.value if their else None)
        if their is None or a is None or b is None:
            continue
        lead = None
        if our.margin is not None and their.margin is not None:
            lead = our.margin - their.margin
        found.append(Change(ours.id.task, doc_id, sign * (a - b), lead))
    return found


def largest_changes(ours: Scores, theirs: Scores, n: int = 20) -> list[Change]:
    """Pick the documents of largest change, half of them gains if there are both.

    Args:
        ours: one model's scores.
        theirs: another's, on the same tasks.
        n: how many documents.
    """
    others = {task.id: task for task in theirs.tasks}
    pairs = [(task, others[task.id]) for task in ours.tasks if task.id in others]
    found = [change for pair in pairs for change in changes(*pair) if change.size > (0.0, 0.0)]
    found.sort(key=lambda change: change.size, reverse=True)
    gains = [change for change in found if _direction(change) > 0]
    losses = [change for change in found if _direction(change) < 0]
    picked = [*gains[: n // 2], *losses[: n - n // 2]]
    rest = [change for change in found if change not in picked]
    return sorted([*picked, *rest[: n - len(picked)]], key=_direction, reverse=True)


def _direction(change: Change) -> float:
    return change.value or change.margin or 0.0


def _number(value: Any) -> float | None:
    """Read a document's value as a number; of a (sum, weight) pair the mean."""
    match value:
        case int() | float():
            return float(value)
        case [int() | float() as total, int() | float() as weight] if weight > 1:
            return total / weight
    return None
