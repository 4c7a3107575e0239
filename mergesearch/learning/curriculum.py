"""The curriculum: the documents, or prompts, that coefficients are learned from."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator, lessons
from mergesearch.requests import Generation, LogLikelihood, Request
from mergesearch.space import Learned

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask

_Item = TypeVar("_Item")

#: What a forward and backward pass over a document counts, in answers.
ANSWERS = 3
#: Tokens that a parent writes behind a user's prompt, at most.
N_WRITTEN = 32


@dataclass(frozen=True)
class Curriculum:
    """Settings of learning, and documents of tasks or prompts for parents."""

    learned: Learned
    #: Each task with the ids of its documents, in the order in which passes take them.
    documents: "tuple[tuple[BuiltTask, tuple[int, ...]], ...]" = ()
    #: Texts by parent, in place of documents: what each parent writes behind its own is imitated.
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Parents that have no texts where others have.
    unasked: tuple[str, ...] = ()
    #: Tasks that there is nothing to learn from.
    left_out: tuple[str, ...] = ()
    #: Tasks whose documents are those that a search scores candidates on.
    searched: tuple[str, ...] = ()
    #: Documents that are not learned from because a held-out task has the same text.
    n_held_out: int = 0
    #: By task, those of the documents that a search's limits leave over: not to be scored any more.
    apart: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of_suite(
        cls, learned: Learned, evaluator: Evaluator, parents: Collection[str]
    ) -> "Curriculum":
        """Choose the documents of a suite's tasks.

        Args:
            learned: says from how many in how many passes, and by which loss.
            evaluator: of the suite.
            parents: the names that an expert may have.

        Raises:
            InputError: no task has what the loss asks for, or its expert is none of the parents.
        """
        chosen = lessons(evaluator, learned.documents * learned.passes)
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
                f"{', '.join(left_out) or 'none'}; take loss: parents, tasks with right answers, "
                "or methods without learned"
            )
        names = [task.id.task for task, _ in documents]
        sources = {part.task.id.task: part.source for part in chosen.tasks}
        return cls(
            learned,
            tuple(documents),
            left_out=tuple(left_out),
            searched=tuple(n for n in names if sources[n] == "search"),
            n_held_out=chosen.n_held_out,
            apart=_apart(documents, evaluator.tasks("search")),
        )

    @classmethod
    def of_prompts(
        cls, learned: Learned, prompts: Mapping[str, tuple[str, ...]], parents: Collection[str]
    ) -> "Curriculum":
        """Take a user's prompts, by the parent whose answers are imitated on them.

        Raises:
            InputError: there are none, one is empty, or a name is none of the parents.
        """
        if not prompts:
            raise InputError("learned: there are no prompts to learn from; give PARENT=FILE")
        for name, texts in prompts.items():
            if name not in parents:
                raise InputError(f"prompts: {unknown('parent', name, parents)}")
            if not texts or not all(text.strip() for text in texts):
                raise InputError(f"prompts: {name} has an empty one, or none; give some text")
        unasked = tuple(name for name in parents if name not in prompts)
        learned = learned.model_copy(update={"loss": "parents"})
        return cls(learned, prompts=dict(prompts), unasked=unasked)

    def of_pass(self, number: int) -> "Curriculum":
        """Take what a pass learns from.

        That is others than before, while there are some. Every pass has as many.

        Args:
            number: of the pass, from 1.
        """
        n = self.learned.documents
        documents = tuple((task, _turn(of, n, number)) for task, of in self.documents)
        prompts = {name: _turn(texts, n, number) for name, texts in self.prompts.items()}
        return replace(self, documents=documents, prompts=prompts)

    @property
    def n_lessons(self) -> int:
        """Documents, and prompts."""
        return sum(len(of) for _, of in self.documents) + sum(map(len, self.prompts.values()))

    @property
    def n_answers(self) -> int:
        """Answers that one trajectory takes, those of parents included."""
        passes = [self.of_pass(number + 1) for number in range(self.learned.passes)]
        n_answers = sum(ANSWERS * one.n_lessons for one in passes)
        if self.learned.loss == "parents":  # who are asked once for what a pass takes of a task
            documents = {(task.id, of) for one in passes for task, of in one.documents}
            prompts = {(name, of) for one in passes for name, of in one.prompts.items()}
            n_answers += sum(len(of) for _, of in documents)
            n_answers += 2 * sum(len(of) for _, of in prompts)  # written, and predicted
        return n_answers

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
        if self.unasked:
            found.append(
                f"there are no prompts for {', '.join(self.unasked)}: what no other parent can do "
                "is not learned, and may be lost; give PARENT=FILE for each"
            )
        if self.left_out:
            found.append(f"nothing to learn from in {', '.join(self.left_out)}: left out")
        if self.n_held_out:
            documents = f"{self.n_held_out} document{'s' * (self.n_held_out > 1)}"
            found.append(f"not learned from, since held-out has the same text: {documents}")
        if self.searched:
            found.append(
                f"coefficients are learned from the documents that candidates are scored on, of "
                f"{', '.join(self.searched)}: only held-out scores can be believed; give the suite "
                "learn tasks, or limits that leave documents over"
            )
        return found


def _apart(
    learned: "Iterable[tuple[BuiltTask, Sequence[int]]]", search: "Iterable[BuiltTask]"
) -> dict[str, tuple[int, ...]]:
    """Find what is learned from, by its text, in what search tasks leave over."""
    texts = {task.questions[i] for task, of in learned for i in of}
    over = ((task, range(task.end, task.n_available)) for task in search)
    return {task.id.task: tuple(i for i in ids if task.questions[i] in texts) for task, ids in over}


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


def _turn(items: Sequence[_Item], n: int, number: int) -> tuple[_Item, ...]:
    """Take at most n items, each turn behind the one before, and round again."""
    n = min(n, len(items))
    return tuple(items[((number - 1) * n + i) % len(items)] for i in range(n))


def _written(request: Request) -> Request:
    if not isinstance(request, Generation):
        return request
    n_tokens = int(request.options.get("max_gen_toks", N_WRITTEN))
    return LogLikelihood(request.prompt, " a" * n_tokens)
