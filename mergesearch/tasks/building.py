"""Building a suite's tasks, and saying what is wrong with one before a search."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.task import Task

from mergesearch.errors import CandidateError, InputError
from mergesearch.requests import LogLikelihood, Request, Response, RollingLogLikelihood
from mergesearch.scores import TaskId
from mergesearch.tasks.benchmarks import benchmark_of, dataset_of, scored_split
from mergesearch.tasks.built import BuiltTask
from mergesearch.tasks.catalogue import Catalogue
from mergesearch.tasks.fingerprint import fingerprint, tokenizer_hash
from mergesearch.tasks.groups import aggregate_of
from mergesearch.tasks.metrics import aggregation_of, better, metric_and_filter
from mergesearch.tasks.prompts import rendered
from mergesearch.tasks.suite import Suite, TaskSpec
from mergesearch.tasks.templates import compile_once

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def build_tasks(
    suite: Suite, tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, tuple[BuiltTask, ...]]:
    """Build the tasks of a suite, in order, by split; a group becomes its tasks.

    Raises:
        InputError: a task is unknown or occurs twice, has no such metric or filter, its data is
            missing, or it cannot be built for another reason; a task to search on or to learn
            from is a benchmark's test set, and the suite does not allow that; one to learn from
            has the documents of a held-out one.
    """
    specs = {"search": suite.search, "held_out": suite.held_out, "learn": suite.learn}
    names = [spec.task for split in specs.values() for spec in split]
    compile_once()
    catalogue = Catalogue(suite.include_path, names)
    sources = {
        split: [(spec, catalogue.load(spec.task)) for spec in ofs] for split, ofs in specs.items()
    }
    if not suite.allow_benchmarks:
        # before prompts are rendered: benchmarks have thousands
        for _, source in sources["search"]:
            _refuse_benchmarks(source, "a search task", "search on")
        for _, source in sources["learn"]:
            _refuse_benchmarks(source, "a task to learn from", "learn from")
    builder = _Builder(tokenizer)
    splits = {
        split: tuple(task for spec, source in pairs for task in builder.build(spec, source))
        for split, pairs in sources.items()
    }
    for tasks in splits.values():
        _check_each_once(tasks)
    _check_held_out(splits["learn"], splits["held_out"])
    return splits


class _Builder:
    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._tokenizer_hash = tokenizer_hash(tokenizer)

    def build(self, spec: TaskSpec, loaded: Task | Group) -> list[BuiltTask]:
        """Build the task that a spec names, or those of the group, which share its weight."""
        if not isinstance(loaded, Group):
            return [self._build(spec, loaded, *metric_and_filter(spec, loaded))]
        aggregate = aggregate_of(loaded, spec)
        if aggregate.missing:
            log.warning(
                "group %r: %d of its tasks do not have %s and do not count: %s",
                *(spec.task, len(aggregate.missing), spec.metric, ", ".join(aggregate.missing)),
            )
        sources = {task.task_name: task for task in loaded.get_all_tasks()}
        members = [
            self._build(spec, sources[name], aggregate.metric, aggregate.filter)
            for name in aggregate.counts
        ]
        if len({member.id.higher_is_better for member in members}) > 1:
            raise InputError(
                f"group {spec.task!r}: a higher {aggregate.metric} is better in some of its tasks "
                f"and worse in others; list its members instead: {', '.join(loaded.child_names)}"
            )
        now = aggregate.shares({member.id.task: member.n_documents for member in members})
        full = aggregate.shares({member.id.task: member.n_available for member in members})
        return [
            replace(
                member,
                id=replace(member.id, group=loaded.name),
                family=loaded,
                weight=spec.weight * now[member.id.task],
                full_weight=spec.weight * full[member.id.task],
            )
            for member in members
        ]

    def _build(self, spec: TaskSpec, source: Task, metric: str, filter_name: str) -> BuiltTask:
        higher_is_better = better(source, metric)
        aggregation = aggregation_of(source, metric)
        documents = rendered(spec, source, self._tokenizer)
        key = (metric, filter_name, aggregation, higher_is_better)
        task = BuiltTask(
            id=TaskId(
                task=source.task_name,
                metric=metric,
                filter=filter_name,
                higher_is_better=higher_is_better,
                aggregation=aggregation,
                fingerprint=fingerprint(source, documents, key, self._tokenizer_hash),
            ),
            spec=spec,
            family=None,
            weight=spec.weight,
            full_weight=spec.weight,
            end=min(spec.limit or len(documents), len(documents)),
            benchmark=benchmark_of(source),
            dataset=dataset_of(source),
            tokenizer_hash=self._tokenizer_hash,
            source=source,
            documents=documents,
        )
        _try_grading(task)
        return task


def _refuse_benchmarks(source: Task | Group, kind: str, use: str) -> None:
    tasks = source.get_all_tasks() if isinstance(source, Group) else [source]
    for task in tasks:
        if benchmark := benchmark_of(task):
            group = f" of group {source.name!r}" if isinstance(source, Group) else ""
            raise InputError(
                f"{kind} must not be a benchmark's test set, but {task.task_name!r}{group} "
                f"reads the split {scored_split(task)!r} of {benchmark}, on which its numbers are "
                f"reported; {use} another split or a task of your own and keep this one under "
                f"held_out, or set allow_benchmarks: true, and the report will say so"
            )


def _check_each_once(tasks: Iterable[BuiltTask]) -> None:
    counts = Counter(task.id.task for task in tasks)
    for task in tasks:
        if counts[task.id.task] > 1:
            owners = [
                f"in group {t.id.group!r}" if t.id.group else "by itself"
                for t in tasks
                if t.id.task == task.id.task
            ]
            raise InputError(
                f"a task may appear once in a split, but {task.id.task!r} appears "
                f"{' and '.join(owners)}; list it or the members of the groups once"
            )


def _check_held_out(learn: Iterable[BuiltTask], held_out: Iterable[BuiltTask]) -> None:
    """Refuse to learn from held-out tasks, by the same name or another."""
    for task, other in product(learn, held_out):
        if task.id.task == other.id.task or set(task.questions) <= set(other.questions):
            raise InputError(
                f"held-out must not be learned from, but the documents of the task "
                f"{task.id.task!r} under learn are those of {other.id.task!r} under held_out; "
                f"name a training split under learn"
            )


def _try_grading(task: BuiltTask) -> None:
    """Grade made-up responses to every document, to meet errors before a search.

    Raises:
        InputError: no document has the metric, it is NaN or infinite whatever the response, or
            the task's own functions fail.
    """
    where, faults = f"task {task.id.task!r}", []
    for draw in (0, 1):  # the metric may be undefined where all responses are alike
        doc_ids = range(task.n_available)
        try:
            documents = task.grade(doc_ids, _made_up(task.requests(doc_ids), draw))
            if all(document.value is None for document in documents.values()):
                raise InputError(
                    f"{where} lists {task.id.metric!r} in its metric_list, but its grading does "
                    f"not compute it; choose one that lm-eval has for {task.source.OUTPUT_TYPE}"
                )
            task.score(documents)
        except CandidateError as error:
            faults.append(str(error).removeprefix(f"{where}: "))
        except InputError:
            raise
        except Exception as error:  # whatever the task's own functions raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(f"{where}: cannot compute {task.id.metric}: {reason}") from error
    if len(faults) == 2:
        raise InputError(
            f"{where} has no finite score whatever a model answers: {faults[0]}; "
            f"check its data and its metric"
        )


def _made_up(requests: Iterable[Request], draw: int) -> list[Response]:
    """Make up responses of each kind: likely choices drawn at random, short texts."""
    generator = np.random.default_rng(draw)
    responses: list[Response] = []
    for request in requests:
        logprob = -float(generator.uniform(1, 2))
        match request:
            case LogLikelihood():
                responses.append((logprob, bool(draw)))
            case RollingLogLikelihood():
                responses.append(logprob)
            case _:
                responses.append("1" * draw)
    return responses
