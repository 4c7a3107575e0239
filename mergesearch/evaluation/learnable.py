"""The documents that coefficients are learned from, none of them held out."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from mergesearch.evaluation.evaluator import Evaluator

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask

#: The suite's `learn`; what the limit of a search task leaves over; what a search scores too.
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
    limit leaves over. A document whose text a held-out task has too is left out, which may leave a
    task without any; one whose text the search scores is taken only where a task has no others.

    Args:
        evaluator: of the suite.
        n: documents a task at most; None takes all.
    """
    suite = evaluator.suite
    search = evaluator.tasks("search")
    held_out = {
        question
        for task in (evaluator.tasks("held_out") if suite.held_out else ())
        for question in task.questions
    }
    scored = {task.questions[i] for task in search for i in task.doc_ids}
    choose = partial(_lesson, held_out=held_out, scored=scored, n=n)
    if suite.learn:
        taught = [choose(task, task.doc_ids, "learn") for task in evaluator.tasks("learn")]
    else:
        over = [choose(task, range(task.end, task.n_available), "left over") for task in search]
        taught = [
            one if one.doc_ids else choose(one.task, one.task.doc_ids, "search") for one in over
        ]
    return Lessons(tuple(taught))


def _lesson(
    task: "BuiltTask",
    doc_ids: Iterable[int],
    source: Source,
    *,
    held_out: set[str],
    scored: set[str],
    n: int | None,
) -> LearnableTask:
    doc_ids = tuple(doc_ids)
    own = [i for i in doc_ids if task.questions[i] not in held_out]
    n_held_out = len(doc_ids) - len(own)
    if new := [i for i in own if task.questions[i] not in scored]:
        return LearnableTask(task, task.ordered(new)[:n], source, n_held_out)
    return LearnableTask(task, task.ordered(own)[:n], "search", n_held_out)
