"""lm-eval's tasks, built once: their prompts, their grading, and what identifies their scores."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from mergesearch.config import unknown
from mergesearch.errors import CandidateError, InputError
from mergesearch.evaluation.catalogue import Catalogue
from mergesearch.evaluation.fingerprint import fingerprint, tokenizer_hash
from mergesearch.evaluation.scores import OWN_AGGREGATIONS, TaskScore
from mergesearch.evaluation.suite import Suite, TaskSpec

#: lm-eval's own seed for drawing solved examples, so that prompts are those of `lm_eval run`.
_FEWSHOT_SEED = 1234


@dataclass(frozen=True, eq=False)
class BuiltTask:
    """A task whose prompts are rendered; its first `n_documents` are what is scored.

    The requests hold the last responses given to them: score one candidate at a time.
    """

    spec: TaskSpec
    metric: str
    filter: str
    higher_is_better: bool
    #: Name of the task's aggregation: lm-eval's, or one in `scores.OWN_AGGREGATIONS`.
    aggregation: str
    n_documents: int
    #: Hash of the tokenizer that encodes the prompts.
    tokenizer_hash: str
    source: Task
    #: The requests of every document of the task, in order, `limit` or not.
    documents: tuple[tuple[Instance, ...], ...]

    @property
    def name(self) -> str:
        """The task's name, which is its key in a suite's split."""
        return self.spec.task

    @property
    def weight(self) -> float:
        """Share in the total, relative to the other tasks of the split."""
        return self.spec.weight

    @property
    def n_available(self) -> int:
        """Documents there are without a limit."""
        return len(self.documents)

    @cached_property
    def requests(self) -> tuple[Instance, ...]:
        """Requests of the documents that are scored."""
        return tuple(r for document in self.documents[: self.n_documents] for r in document)

    @cached_property
    def doc_ids(self) -> tuple[int, ...]:
        """Indices of the documents that are scored."""
        return tuple(document[0].doc_id for document in self.documents[: self.n_documents])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that a model's scores depend on: prompts, targets, metric, tokenizer."""
        documents = self.documents[: self.n_documents]
        key = (self.metric, self.filter, self.aggregation, self.higher_is_better)
        return fingerprint(self.source, documents, key, self.tokenizer_hash)

    def full(self) -> "BuiltTask":
        """The same task over all of its documents; the requests are shared."""
        return self if self.n_documents == self.n_available else self._unlimited

    @cached_property
    def _unlimited(self) -> "BuiltTask":
        # kept, since its fingerprint reads every prompt
        return replace(self, n_documents=self.n_available)

    def grade(self) -> TaskScore:
        """The score of the responses that the requests now hold.

        Raises:
            CandidateError: a value is NaN or infinite.
            InputError: the task does not compute the metric.
        """
        for ensemble in self.source._filters:
            if ensemble.name == self.filter:
                ensemble.apply(list(self.requests))
        values = [self._value(document) for document in self.documents[: self.n_documents]]
        value = float(self.source.aggregation()[self.metric](values))
        if not math.isfinite(value):
            raise CandidateError(f"{self.metric} is {value}")
        stderr = None
        if self.aggregation == "mean" and len(values) > 1:
            stderr = float(np.std(values, ddof=1) / math.sqrt(len(values)))
        return TaskScore(
            task=self.name,
            metric=self.metric,
            filter=self.filter,
            higher_is_better=self.higher_is_better,
            weight=self.weight,
            aggregation=self.aggregation,
            fingerprint=self.fingerprint,
            doc_ids=self.doc_ids,
            values=tuple(values),
            value=value,
            stderr=stderr,
        )

    def _value(self, document: Sequence[Instance]) -> Any:
        """The metric on one document, as JSON holds it."""
        responses = [request.filtered_resps[self.filter] for request in document]
        metrics = self.source.process_results(document[0].doc, responses)
        if self.metric not in metrics:
            raise InputError(
                f"task {self.name!r} lists {self.metric!r} in its metric_list, but its grading "
                f"does not compute it; choose one that lm-eval has for {self.source.OUTPUT_TYPE}"
            )
        value = _jsonable(metrics[self.metric])
        if isinstance(value, bool | int):
            value = float(value)
        if not _finite(value):
            raise CandidateError(f"document {document[0].doc_id}: {self.metric} is {value}")
        return value


def build_tasks(
    suite: Suite, tokenizer: PreTrainedTokenizerBase
) -> dict[str, tuple[BuiltTask, ...]]:
    """Build the tasks of a suite, in order, by split.

    Raises:
        InputError: a task is unknown, is not one task, has no such metric or filter, its data is
            missing, or it cannot be built for another reason.
    """
    splits = {"search": suite.search, "held_out": suite.held_out}
    names = [spec.task for specs in splits.values() for spec in specs]
    catalogue = Catalogue(suite.include_path, names)
    identity = tokenizer_hash(tokenizer)
    return {
        split: tuple(_build(spec, catalogue.task(spec.task), tokenizer, identity) for spec in specs)
        for split, specs in splits.items()
    }


def _build(
    spec: TaskSpec, source: Task, tokenizer: PreTrainedTokenizerBase, identity: str
) -> BuiltTask:
    where = f"task {spec.task!r}"
    metric, filter_name = _metric_and_filter(spec, source)
    higher_is_better = source.higher_is_better().get(metric)
    if higher_is_better is None:
        raise InputError(
            f"{where}: whether a higher {metric} is better must be known; "
            f"add 'higher_is_better' to its entry in the task's metric_list"
        )
    documents = _documents(spec, source, tokenizer)
    task = BuiltTask(
        spec=spec,
        metric=metric,
        filter=filter_name,
        higher_is_better=bool(higher_is_better),
        aggregation=_aggregation(spec.task, metric, source.aggregation()[metric]),
        n_documents=min(spec.limit or len(documents), len(documents)),
        tokenizer_hash=identity,
        source=source,
        documents=documents,
    )
    _try_grading(task)
    return task


def _metric_and_filter(spec: TaskSpec, source: Task) -> tuple[str, str]:
    """The spec's metric and filter, where the task has them."""
    where = f"task {spec.task!r}"
    metric, _, filter_name = (part.strip() for part in spec.metric.partition(","))
    if metric not in source.aggregation():
        raise InputError(f"{where}: " + unknown("metric", metric, source.aggregation()))
    filters = [entry["name"] for entry in source.config.filter_list or [{"name": "none"}]]
    if not filter_name and len(filters) > 1:
        raise InputError(
            f"{where} has {len(filters)} filters, so a metric must name one; write metric: "
            f"{' or '.join(repr(f'{metric},{name}') for name in filters)}"
        )
    if filter_name and filter_name not in filters:
        raise InputError(f"{where}: " + unknown("filter", filter_name, filters))
    return metric, filter_name or filters[0]


def _documents(
    spec: TaskSpec, source: Task, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[Instance, ...], ...]:
    """The requests of every document. The whole split is rendered, whatever the limit.

    Solved examples are drawn document by document from one generator; but for rendering all,
    a limited run would not be the beginning of the full one.
    """
    where = f"task {spec.task!r}"
    if spec.apply_chat_template and not tokenizer.chat_template:
        raise InputError(f"{where}: the tokenizer has no chat template; drop apply_chat_template")
    fixed = source.config.num_fewshot
    if spec.num_fewshot is not None and fixed == 0 and spec.num_fewshot > 0:
        raise InputError(
            f"{where} fixes num_fewshot at 0, but the suite asks for {spec.num_fewshot}; "
            f"drop num_fewshot from the suite"
        )
    n_shots = spec.num_fewshot if spec.num_fewshot is not None else fixed or 0
    source.set_config("num_fewshot", n_shots)
    source.set_fewshot_seed(_FEWSHOT_SEED)
    try:
        source.build_all_requests(
            apply_chat_template=spec.apply_chat_template,
            fewshot_as_multiturn=spec.fewshot_as_multiturn,
            # lm-eval's own rendering, which needs a tokenizer but no model.
            chat_template=partial(
                HFLM.apply_chat_template,
                SimpleNamespace(tokenizer=tokenizer, chat_template_args={}),
            )
            if spec.apply_chat_template
            else None,
        )
    except Exception as error:  # whatever the task's own templates and functions raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{where} cannot be rendered with {n_shots} shots: {reason}") from error
    documents: dict[int, list[Instance]] = {}
    for request in source.instances:
        documents.setdefault(request.doc_id, []).append(request)
    return tuple(tuple(sorted(requests, key=_index)) for requests in documents.values())


def _try_grading(task: BuiltTask) -> None:
    """Grade an empty response to the first document, to meet the task's errors before a search."""
    first = replace(task, n_documents=1)
    blank = {"loglikelihood": (0.0, False), "loglikelihood_rolling": 0.0, "generate_until": ""}
    for request in first.requests:
        request.resps = [blank[request.request_type]] * request.repeats
    try:
        with contextlib.suppress(CandidateError):  # some metrics are undefined on one document
            first.grade()
    except InputError:
        raise
    except Exception as error:  # whatever the task's own functions raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"task {task.name!r}: cannot compute {task.metric}: {reason}") from error


def _aggregation(task: str, metric: str, function: Callable[[Sequence[Any]], float]) -> str:
    """The name under which `scores` finds the aggregation function."""
    for name, registered in AGGREGATION_REGISTRY.items():
        if registered is function:
            return name
    name = f"{task}.{metric}"
    OWN_AGGREGATIONS[name] = function
    return name


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return [_jsonable(item) for item in value] if isinstance(value, list | tuple) else value


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _index(request: Instance) -> int:
    return request.idx
