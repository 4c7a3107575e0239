"""lm-eval's tasks as they are built: their prompts, their grading, what identifies their scores."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from mergesearch.errors import CandidateError
from mergesearch.scores.scores import DocumentScore, TaskScore, summary
from mergesearch.tasks.grading import grade
from mergesearch.tasks.order import stratified_order
from mergesearch.tasks.suite import TaskSpec


@dataclass(frozen=True, eq=False)
class BuiltTask:
    """A task whose prompts are rendered; its first `n_documents` are what is scored.

    The requests hold the last responses given to them: score one candidate at a time.
    """

    spec: TaskSpec
    #: The key of its scores; the spec's task, or one task of the group that the spec names.
    name: str
    #: The group that the spec names, if it is one, with its subgroups.
    family: Group | None
    #: Share in the total, relative to the other tasks of the split.
    weight: float
    #: The same where every task is scored in full: groups may weigh tasks by their documents.
    full_weight: float
    metric: str
    filter: str
    higher_is_better: bool
    #: Name of the task's aggregation: lm-eval's, or one in `aggregation.OWN_AGGREGATIONS`.
    aggregation: str
    n_documents: int
    #: Name of the well-known benchmark whose reported set it is, if it is one.
    benchmark: str | None
    #: Hash of the tokenizer that encodes the prompts.
    tokenizer_hash: str
    #: Hash of all that a model's scores depend on: prompts, targets, metric, tokenizer. It is that
    #: of the whole task, so that a document has one score whatever the limit.
    fingerprint: str
    source: Task
    #: The requests of every document of the task, in order, `limit` or not.
    documents: tuple[tuple[Instance, ...], ...]

    @property
    def group(self) -> str | None:
        """The name of the group that the spec names, if it is one."""
        return self.family.name if self.family else None

    @property
    def n_available(self) -> int:
        """Documents there are without a limit."""
        return len(self.documents)

    @property
    def doc_ids(self) -> range:
        """The documents that are scored."""
        return range(self.n_documents)

    def requests(self, doc_ids: Iterable[int]) -> list[Instance]:
        """The requests of some documents."""
        return [request for i in doc_ids for request in self.documents[i]]

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The documents that are scored in the order of scoring, stratified by their targets."""
        return stratified_order([self._stratum(i) for i in self.doc_ids])

    def full(self) -> "BuiltTask":
        """The same task over all of its documents; the requests are shared."""
        limited = self.n_documents < self.n_available or self.weight != self.full_weight
        return self._unlimited if limited else self

    @cached_property
    def _unlimited(self) -> "BuiltTask":
        # kept for its order, which reads every target
        return replace(self, n_documents=self.n_available, weight=self.full_weight)

    def grade(self, doc_ids: Iterable[int]) -> dict[int, DocumentScore]:
        """Grade the responses that the requests of some documents now hold.

        Raises:
            CandidateError: a value is NaN or infinite.
        """
        doc_ids = tuple(doc_ids)
        for ensemble in self.source._filters:
            if ensemble.name == self.filter:
                ensemble.apply(self.requests(doc_ids))
        return {i: grade(self.source, self.metric, self.filter, self.documents[i]) for i in doc_ids}

    def score(self, documents: Mapping[int, DocumentScore]) -> TaskScore:
        """The task's score from those of some of its documents.

        Raises:
            CandidateError: the aggregation is NaN or infinite, or no document has the metric.
        """
        fields = summary(self.aggregation, documents)
        if not math.isfinite(fields["value"]):
            raise CandidateError(f"task {self.name!r}: {self.metric} is {fields['value']}")
        return TaskScore(
            task=self.name,
            metric=self.metric,
            filter=self.filter,
            higher_is_better=self.higher_is_better,
            weight=self.weight,
            aggregation=self.aggregation,
            fingerprint=self.fingerprint,
            group=self.group,
            **fields,
        )

    def _stratum(self, doc_id: int) -> Hashable:
        """What a document's right answer is, where it is one of a few choices."""
        if self.source.OUTPUT_TYPE != "multiple_choice":
            return None
        return repr(self.source.doc_to_target(self.documents[doc_id][0].doc))
