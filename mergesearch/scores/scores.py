"""The scores of a candidate, document by document."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from mergesearch.errors import InputError
from mergesearch.scores.aggregation import aggregation_function
from mergesearch.scores.task_id import TaskId


@dataclass(frozen=True)
class DocumentScore:
    """One candidate on one document."""

    #: What the aggregation takes: a number, a list, or None where the metric is not defined.
    value: Any
    #: Log-likelihood (nats) by which the right answer leads the best wrong one, or of the target
    #: where there is no choice; of a metric normalised by length, normalised alike. None where
    #: the task generates or reads a text in windows: the value then says it all.
    margin: float | None = None
    #: Share of the texts written for it that only the token limit ended; None where none was
    #: written, or where it is not known.
    cut: float | None = None


@dataclass(frozen=True)
class TaskScore:
    """One candidate on one task, or on some documents of it."""

    id: TaskId
    #: Share in the total, relative to the other tasks.
    weight: float
    doc_ids: tuple[int, ...]
    documents: tuple[DocumentScore, ...]
    value: float
    #: Of the mean; None for other aggregations.
    stderr: float | None

    @property
    def values(self) -> tuple[Any, ...]:
        """One value a document."""
        return tuple(document.value for document in self.documents)

    def on(self, doc_ids: Collection[int]) -> Self:
        """Restrict the score to some of the documents.

        Raises:
            InputError: one of them was not scored.
        """
        known = dict(zip(self.doc_ids, self.documents, strict=True))
        missing = sorted(set(doc_ids) - known.keys())
        if missing:
            raise InputError(
                f"task {self.id.task!r} was scored on {len(known)} documents, without "
                f"{missing[0]}; score the candidate on it first"
            )
        return replace(self, **summary(self.id.aggregation, {i: known[i] for i in doc_ids}))


def summary(aggregation: str, documents: Mapping[int, DocumentScore]) -> dict[str, Any]:
    """Compute the fields of a task's score that its documents, by id, decide.

    A document whose value is None is left out, as lm-eval leaves it.
    """
    doc_ids = tuple(sorted(documents))
    values = [documents[i].value for i in doc_ids if documents[i].value is not None]
    value = float(aggregation_function(aggregation)(values)) if values else math.nan
    stderr = None
    if aggregation == "mean" and len(values) > 1:
        stderr = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    return {
        "doc_ids": doc_ids,
        "documents": tuple(documents[i] for i in doc_ids),
        "value": value,
        "stderr": stderr,
    }


@dataclass(frozen=True)
class Scores:
    """One candidate on the tasks of a split.

    >>> from mergesearch import Scores, TaskId
    >>> from mergesearch.scores import DocumentScore, TaskScore, summary
    >>> sums = TaskId("sums", "acc", "none", True, "mean", fingerprint="4fe1")
    >>> documents = {0: DocumentScore(1.0), 1: DocumentScore(0.0), 2: DocumentScore(1.0)}
    >>> scores = Scores((TaskScore(sums, weight=2.0, **summary("mean", documents)),))
    >>> round(scores.total, 3)
    0.667
    """

    tasks: tuple[TaskScore, ...]

    @property
    def total(self) -> float:
        """Weighted mean of the tasks' values, those negated in which lower is better."""
        signed = [
            task.weight * (task.value if task.id.higher_is_better else -task.value)
            for task in self.tasks
        ]
        return sum(signed) / sum(task.weight for task in self.tasks)

    @property
    def n_documents(self) -> int:
        """Documents scored, over all tasks."""
        return sum(len(task.doc_ids) for task in self.tasks)

    def of(self, name: str) -> "Scores":
        """Select the scores of one task, or of one group's tasks."""
        return Scores(tuple(task for task in self.tasks if name in (task.id.task, task.id.group)))

    def on(self, other: "Scores") -> "Scores":
        """Restrict these scores to the tasks and documents of another candidate's.

        Raises:
            InputError: a task or a document of the other was not scored here.
        """
        known = {(task.id.task, task.id.fingerprint): task for task in self.tasks}
        parts = []
        for theirs in other.tasks:
            ours = known.get((theirs.id.task, theirs.id.fingerprint))
            if ours is None:
                raise InputError(
                    f"task {theirs.id.task!r} was not scored; score the candidate on it first"
                )
            # of a group whose tasks count by their documents, the weight goes with these
            parts.append(replace(ours.on(theirs.doc_ids), weight=theirs.weight))
        return Scores(tuple(parts))
