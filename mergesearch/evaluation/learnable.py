"""The documents that coefficients are learned from, none of them held out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mergesearch.evaluation.evaluator import Evaluator

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask

#: The suite's `learn`; what the limit of a search task leaves over; what the search scores too.
Source = Literal["learn", "left over", "search"]


@dataclass(frozen=True)
class LearnableTask:
    """The documents of one task that coefficients are learned from."""

    task: "BuiltTask"
    #: Stratified by right answers: every beginning has its share of each.
    doc_ids: tuple[int, ...]
    source: Source
    #: Documents that were left out because a held-out task has the same text.
    n_held_out: int


@dataclass(frozen=True)
class Lessons:
    """The documents that coefficients are learned from, task by task."""

    tasks: tuple[LearnableTask, ...]

    @property
    def n_documents(self) -> int:
        """Documents of all tasks."""
        return sum(len(lesson.doc_ids) for lesson in self.tasks)

    @property
    def n_held_out(self) -> int:
        """Documents left out because a held-out task has the same text."""
        return sum(lesson.n_held_out for lesson in self.tasks)


def lessons(evaluator: Evaluator, n: int | None = None) -> Lessons:
    """Choose the documents to learn from.

    Those of the suite's `learn` tasks, if it has some. Else, of each search task, those that its
    limit leaves over; or, where none are, those that the search scores. A document whose text a
    held-out task has too is left out, which may leave a task without any.

    Args:
        evaluator: of the suite.
        n: documents a task at most; None takes all.
    """
    suite = evaluator.suite
    held_out = {
        question
        for task in (evaluator.tasks("held_out") if suite.held_out else ())
        for question in task.questions
    }
    if suite.learn:
        return Lessons(
            tuple(
                _lesson(task, task.doc_ids, "learn", held_out, n)
                for task in evaluator.tasks("learn")
            )
        )
    return Lessons(tuple(_of_search(task, held_out, n) for task in evaluator.tasks("search")))


def _of_search(task: "BuiltTask", held_out: set[str], n: int | None) -> LearnableTask:
    over = _lesson(task, range(task.end, task.n_available), "left over", held_out, n)
    return over if over.doc_ids else _lesson(task, task.doc_ids, "search", held_out, n)


def _lesson(
    task: "BuiltTask", doc_ids: Iterable[int], source: Source, held_out: set[str], n: int | None
) -> LearnableTask:
    doc_ids = tuple(doc_ids)
    own = [i for i in doc_ids if task.questions[i] not in held_out]
    return LearnableTask(task, task.ordered(own)[:n], source, len(doc_ids) - len(own))
