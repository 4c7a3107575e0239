"""lm-eval's tasks as they are built: requests, grading, and ids of scores."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from mergesearch.errors import CandidateError
from mergesearch.requests import Generation, LogLikelihood, Request, Response
from mergesearch.scores import DocumentScore, TaskId, TaskScore, summary
from mergesearch.tasks.asking import answered, requests_of
from mergesearch.tasks.examples import answer_of, prompt_of, right_of
from mergesearch.tasks.grading import grade
from mergesearch.tasks.losses import ChoiceLabel, Label, choice_divergence, imitated, label_of
from mergesearch.tasks.order import stratified_order
from mergesearch.tasks.questions import question_of
from mergesearch.tasks.suite import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class BuiltTask:
    """A task whose prompts are rendered; its first documents are scored."""

    id: TaskId
    spec: TaskSpec
    #: The group that the spec names, if it is one, with its subgroups.
    family: Group | None
    #: Share in the total, relative to the other tasks of the split.
    weight: float
    #: The same where every task is scored in full: groups may weigh tasks by their documents.
    full_weight: float
    #: Documents from here on are not scored.
    end: int
    #: Name of the well-known benchmark whose reported set it is, if it is one.
    benchmark: str | None
    #: The data set on the hub that its documents are of, and the subset of it, if they are.
    dataset: tuple[str, str | None] | None
    #: Hash of the tokenizer that encodes the prompts.
    tokenizer_hash: str
    source: Task
    #: The instances of every document of the task, in order, `limit` or not; never written to.
    documents: tuple[tuple[Instance, ...], ...]
    #: Documents that are learned from, and so never scored.
    apart: frozenset[int] = frozenset()

    @property
    def n_available(self) -> int:
        """Documents there are without a limit."""
        return len(self.documents)

    @cached_property
    def doc_ids(self) -> tuple[int, ...]:
        """The documents that are scored."""
        return tuple(i for i in range(self.end) if i not in self.apart)

    @property
    def n_documents(self) -> int:
        """The count of the documents that are scored."""
        return len(self.doc_ids)

    def requests(self, doc_ids: Iterable[int]) -> list[Request]:
        """List the requests of some documents; one to generate n times is there n times."""
        return [request for i in doc_ids for request in self._requests[i]]

    def grade(
        self, doc_ids: Iterable[int], responses: Sequence[Response]
    ) -> dict[int, DocumentScore]:
        """Grade the responses to the requests of some documents.

        Raises:
            CandidateError: a value is NaN or infinite.
        """
        doc_ids = tuple(doc_ids)
        documents = answered((self.documents[i] for i in doc_ids), responses)
        for ensemble in self.source._filters:
            if ensemble.name == self.id.filter:
                ensemble.apply([instance for of in documents for instance in of])
        return {
            i: grade(self.source, self.id.metric, self.id.filter, document)
            for i, document in zip(doc_ids, documents, strict=True)
        }

    def score(self, documents: Mapping[int, DocumentScore]) -> TaskScore:
        """Sum up the scores of some of the documents.

        Raises:
            CandidateError: the aggregation is NaN or infinite, or no document has the metric.
        """
        fields = summary(self.id.aggregation, documents)
        if not math.isfinite(fields["value"]):
            raise CandidateError(f"task {self.id.task!r}: {self.id.metric} is {fields['value']}")
        return TaskScore(id=self.id, weight=self.weight, **fields)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The documents in the order of scoring, stratified by their targets."""
        return self.ordered(self.doc_ids)

    def ordered(self, doc_ids: Iterable[int]) -> tuple[int, ...]:
        """Order some documents so that every beginning has its share of each target."""
        doc_ids = tuple(doc_ids)
        return tuple(doc_ids[k] for k in stratified_order([self._stratum(i) for i in doc_ids]))

    def labelled_docs(self, doc_ids: Iterable[int]) -> tuple[int, ...]:
        """Pick the documents that have a labelled loss.

        Those without a right choice, with right choices only, or without a reference are left out.
        """
        return tuple(i for i in doc_ids if self._label(i) is not None)

    def labelled_requests(self, doc_id: int) -> tuple[Request, ...]:
        """List the log-likelihoods that the labelled loss of a document needs.

        Raises:
            ValueError: the document has no label; see `labelled_docs`.
        """
        return self._labelled(doc_id).requests

    def labelled_loss(self, doc_id: int, nll: "Tensor") -> "Tensor":
        """Compute a document's loss by its label.

        Of choices, the cross-entropy of the right ones, by what the metric compares them by. Of a
        reference or a rolling text, the negative log-likelihood per word; of a log-likelihood
        task's continuation, all of it.

        Args:
            doc_id: of a document with a label.
            nll: negative log-likelihoods of its `labelled_requests` (requests,), in nats.

        Returns:
            Shape (), in nats; differentiable.

        Raises:
            ValueError: the document has no label; see `labelled_docs`.
        """
        return self._labelled(doc_id).loss(nll)

    def imitation_requests(self, doc_id: int) -> tuple[Request, ...]:
        """List the requests at which a model may imitate another, without labels.

        Log-likelihoods of all choices, or of the task's text. Where the task generates, its
        `Generation`, once: the other answers it, and the log-likelihood of the answer is compared.
        """
        return imitated(self.source, self.id.metric, self._doc(doc_id), self._requests[doc_id])

    @property
    def has_choices(self) -> bool:
        """Tell if its documents ask for one of some choices."""
        return self.source.OUTPUT_TYPE == "multiple_choice" and bool(
            self.source.config.doc_to_choice
        )

    def imitation_loss(self, doc_id: int, nll: "Tensor", theirs: "Tensor") -> "Tensor":
        """Compute how far a model is from another in what it chooses, without labels.

        What is said of tokens that are no choice does not count: on the same documents, imitation
        of the choices alone makes better merges than that of every token.

        Args:
            doc_id: of a task that `has_choices`.
            nll: negative log-likelihoods of its `imitation_requests` (requests,), in nats.
            theirs: those of the other model.

        Returns:
            KL(theirs || ours) over the choices, (), in nats; differentiable in `nll`.
        """
        return choice_divergence(self.source, self.id.metric, self._doc(doc_id), nll, theirs)

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The text of each document, which tells if a task of another split has it too."""
        return tuple(question_of(self.source, self._doc(i)) for i in range(self.n_available))

    def texts(self, doc_id: int) -> tuple[str, str | None]:
        """Write a document's prompt and its right answer; None where the task names none."""
        return prompt_of(self._requests[doc_id]), right_of(self.source, self._doc(doc_id))

    def right_text(self, doc_id: int) -> tuple[str, str]:
        """Write all of a document's prompt, and the right answer as it stands behind it.

        The answer is empty where the task names none.
        """
        label = self._label(doc_id)
        if isinstance(label, ChoiceLabel):
            request = label.requests[label.right[0]]
        else:
            request = self._requests[doc_id][0] if label is None else label.requests[0]
        match request:
            case LogLikelihood(context, continuation):
                return context, continuation if label else ""
            case Generation(prompt):
                return prompt, ""
        return request.text, ""

    def answer(self, doc_id: int, responses: Sequence[Response]) -> str:
        """Write a model's answer to a document, from the responses to its requests."""
        requests = self._requests[doc_id]
        return answer_of(self.source, self.id.metric, self._doc(doc_id), requests, responses)

    def full(self) -> "BuiltTask":
        """Take all documents of the task; the instances are shared."""
        limited = self.end < self.n_available or self.weight != self.full_weight
        return self._unlimited if limited else self

    @cached_property
    def _unlimited(self) -> "BuiltTask":
        # kept for its order, which reads every target
        return replace(self, end=self.n_available, weight=self.full_weight)

    @cached_property
    def _requests(self) -> tuple[tuple[Request, ...], ...]:
        # kept, since engines know requests again the faster if they are the same objects
        return tuple(
            tuple(request for instance in document for request in requests_of(instance))
            for document in self.documents
        )

    @cached_property
    def _labels(self) -> dict[int, Label | None]:
        # filled document by document, and kept as requests are
        return {}

    def _label(self, doc_id: int) -> Label | None:
        if doc_id not in self._labels:
            self._labels[doc_id] = label_of(
                self.source,
                self.id.metric,
                self._doc(doc_id),
                self._requests[doc_id],
                chat=self.spec.apply_chat_template,
            )
        return self._labels[doc_id]

    def _doc(self, doc_id: int) -> Any:
        return self.documents[doc_id][0].doc

    def _labelled(self, doc_id: int) -> Label:
        label = self._label(doc_id)
        if label is None:
            raise ValueError(f"document {doc_id} of task {self.id.task!r} has no label")
        return label

    def _stratum(self, doc_id: int) -> Hashable:
        """Name a document's right answer, where it is one of a few choices."""
        if self.source.OUTPUT_TYPE != "multiple_choice":
            return None
        return repr(self.source.doc_to_target(self._doc(doc_id)))
