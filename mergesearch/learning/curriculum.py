"""The curriculum: the documents, or prompts, that coefficients are learned from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator, lessons
from mergesearch.requests import Generation, LogLikelihood, Request
from mergesearch.space import Learned

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask

#: What a forward and backward pass over a document counts, in answers.
ANSWERS = 3
#: Tokens that a parent writes behind a user's prompt, at most.
N_WRITTEN = 32


@dataclass(frozen=True)
class Curriculum:
    """Settings of learning, and documents of tasks or prompts for parents."""

    learned: Learned
    #: Each task with the ids of its documents.
    documents: "tuple[tuple[BuiltTask, tuple[int, ...]], ...]" = ()
    #: Texts by parent, in place of documents: what each parent writes behind its own is imitated.
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Tasks that there is nothing to learn from.
    left_out: tuple[str, ...] = ()
    #: Tasks whose documents are those that a search scores candidates on.
    searched: tuple[str, ...] = ()
    #: By task, those of the documents that a search's limits leave over: not to be scored any more.
    apart: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of_suite(
        cls, learned: Learned, evaluator: Evaluator, parents: Collection[str]
    ) -> "Curriculum":
        """Choose the documents of a suite's tasks.

        Args:
            learned: says from how many, and by which loss.
            evaluator: of the suite.
            parents: the names that an expert may have.

        Raises:
            InputError: no task has what the loss asks for, or its expert is none of the parents.
        """
        chosen = lessons(evaluator, learned.documents)
        documents, left_out = [], []
        for part in chosen.tasks:
            of = part.doc_ids
            if learned.loss == "labels":
                of = part.task.labelled_docs(of)
            else:
                _check_expert(part.task, evaluator, parents)
            if of:
                documents.append((part.task, tuple(of)))
            else:
                left_out.append(part.task.id.task)
        if not documents:
            raise InputError(
                f"learned: no task has what can be learned from by {learned.loss}, got "
                f"{', '.join(left_out) or 'none'}; take loss: parents, or tasks with right answers"
            )
        names = [task.id.task for task, _ in documents]
        sources = {part.task.id.task: part.source for part in chosen.tasks}
        return cls(
            learned,
            tuple(documents),
            left_out=tuple(left_out),
            searched=tuple(n for n in names if sources[n] == "search"),
            apart={t.id.task: of for t, of in documents if sources[t.id.task] == "left over"},
        )

    @classmethod
    def of_prompts(
        cls, learned: Learned, prompts: Mapping[str, tuple[str, ...]], parents: Collection[str]
    ) -> "Curriculum":
        """Take a user's prompts, by the parent whose answers are imitated on them.

        Raises:
            InputError: there are none, or a name is none of the parents.
        """
        if not prompts:
            raise InputError("learned: there are no prompts to learn from; give PARENT=FILE")
        for name in prompts:
            if name not in parents:
                raise InputError(f"prompts: {unknown('parent', name, parents)}")
        return cls(learned.model_copy(update={"loss": "parents"}), prompts=dict(prompts))

    @property
    def n_lessons(self) -> int:
        """Documents, or prompts, of one pass."""
        return sum(len(of) for _, of in self.documents) + sum(map(len, self.prompts.values()))

    @property
    def n_answers(self) -> int:
        """Answers that one trajectory takes, those of parents included."""
        n_asked = 0
        if self.learned.loss == "parents":
            n_asked = sum(len(of) for _, of in self.documents)
            n_asked += 2 * sum(map(len, self.prompts.values()))  # written, and predicted
        return ANSWERS * self.n_lessons * self.learned.passes + n_asked

    @property
    def identity(self) -> list[Any]:
        """Everything that decides the lessons, as JSON has it."""
        experts = self.learned.loss == "parents"
        return [
            *(
                [task.id.fingerprint, list(of), task.weight, experts and task.spec.expert]
                for task, of in self.documents
            ),
            *([name, *texts] for name, texts in self.prompts.items()),
        ]

    def requests(self) -> list[tuple[Request, ...]]:
        """List what each lesson asks; a text yet to be written is as long as may be."""
        asked = [
            task.labelled_requests(i)
            if self.learned.loss == "labels"
            else tuple(map(_written, task.imitation_requests(i)))
            for task, of in self.documents
            for i in of
        ]
        texts = [text for of in self.prompts.values() for text in of]
        return [*asked, *((LogLikelihood(text, " a" * N_WRITTEN),) for text in texts)]

    def lines(self) -> Sequence[str]:
        """Say what a user should know of it before it begins."""
        found = []
        if self.left_out:
            found.append(f"nothing to learn from in {', '.join(self.left_out)}: left out")
        if self.searched:
            found.append(
                f"coefficients are learned from the documents that candidates are scored on, of "
                f"{', '.join(self.searched)}: only held-out scores can be believed; give the suite "
                "learn tasks, or limits that leave documents over"
            )
        return found


def _check_expert(task: "BuiltTask", evaluator: Evaluator, parents: Collection[str]) -> None:
    """Refuse an expert that is no parent, and a task whose expert scores cannot tell."""
    named = task.spec.expert
    if named is not None and named not in parents:
        raise InputError(f"task {task.id.task!r}: {unknown('expert', named, parents)}")
    if named is None and all(task.id != other.id for other in evaluator.tasks()):
        raise InputError(
            f"task {task.id.task!r} is learned from and not searched on, so its expert must be "
            f"named; add expert: {' or '.join(parents)}"
        )


def _written(request: Request) -> Request:
    if not isinstance(request, Generation):
        return request
    n_tokens = int(request.options.get("max_gen_toks", N_WRITTEN))
    return LogLikelihood(request.prompt, " a" * n_tokens)
