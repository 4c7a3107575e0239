"""Scores of any number of candidates on a suite, whose tasks are built once."""

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mergesearch.config import unknown
from mergesearch.engines import ENGINES, Cost, Engine, engine_of
from mergesearch.errors import InputError
from mergesearch.evaluation.stores import DocumentStore, NoStore
from mergesearch.evaluation.turn import Scorer, Turn, Turns
from mergesearch.logs import quiet, without_bars
from mergesearch.runtime import Runtime
from mergesearch.scores import DocumentScore, Scores
from mergesearch.tasks import Suite
from mergesearch.tasks.order import split_evenly

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from mergesearch.tasks import BuiltTask

    #: The tasks of a suite by split.
    Splits = Mapping[str, tuple[BuiltTask, ...]]

#: Documents of a task between two writes to a store: what a kill may cost.
_BLOCK = 256


class Evaluator:
    """The tasks of a suite, rendered once, on which an engine scores candidates.

    >>> from pathlib import Path
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> from mergesearch import Evaluator, load_suite
    >>> tokenizer = AutoTokenizer.from_pretrained("models/base")
    >>> evaluator = Evaluator(load_suite(Path("suite.yaml")), tokenizer)
    >>> scores = evaluator.score(AutoModelForCausalLM.from_pretrained("models/one"))
    >>> [(task.id.task, len(task.doc_ids)) for task in scores.tasks]
    [('first', 12), ('second', 8)]

    Args:
        suite: all splits are built at once, so that what is wrong shows before a search.
        tokenizer: of all candidates. It is copied, and stays as it is.
        runtime: chooses the engine that answers, the device where all candidates are, and the
            rows of a forward pass.
        built: the tasks by split, where another evaluator of the suite has built them.

    Raises:
        InputError: a task of the suite cannot be built, or asks what the engine cannot answer; the
            message names it. There is no such engine or device.
    """

    def __init__(
        self,
        suite: Suite,
        tokenizer: "PreTrainedTokenizerBase",
        runtime: Runtime = Runtime(),  # noqa: B008  frozen
        built: "Splits | None" = None,
    ) -> None:
        self.suite = suite
        tokenizer = copy.deepcopy(tokenizer)
        self._engine = engine_of(tokenizer, runtime)
        self._splits = dict(_build(suite, tokenizer) if built is None else built)
        for split in self._splits.values():
            _check_capabilities(split, self._engine, runtime.engine)
        self._turns = Turns(self._engine)

    @property
    def engine(self) -> Engine:
        """The engine, for a caller who loads models of his own.

        Ask for it again for each model: a model that is scored block by block is then loaded anew
        before its next block.
        """
        return self._turns.engine

    @property
    def built(self) -> "Splits":
        """The tasks by split, for an evaluator elsewhere."""
        return self._splits

    def turn(self, model: "PreTrainedModel") -> Turn:
        """Begin a turn of a model, whose weights must stay as they are until it ends."""
        return self._turns.begin(model)

    def tasks(self, split: str = "search", *, full: bool = False) -> tuple["BuiltTask", ...]:
        """Give the tasks of a split.

        Args:
            split: "search", "held_out" or "learn".
            full: all documents, whatever the suite's limits.

        Raises:
            InputError: there is no such split, or it has no tasks.
        """
        if split not in self._splits:
            raise InputError(unknown("split", split, self._splits))
        tasks = self._splits[split]
        if not tasks:
            raise InputError(f"the suite has no {split} tasks; list some under {split!r}")
        return tuple(task.full() for task in tasks) if full else tasks

    def set_apart(self, documents: Mapping[str, Collection[int]]) -> None:
        """Leave documents out of all search scores, since they are learned from.

        Args:
            documents: ids by the name of their task.
        """
        self._splits["search"] = tuple(
            replace(task, apart=frozenset(documents.get(task.id.task, ())))
            for task in self._splits["search"]
        )

    def cost(
        self,
        config: "PreTrainedConfig",
        dtype: "torch.dtype",
        device: "torch.device",
        split: str = "search",
    ) -> Cost:
        """Estimate the cost of scoring one candidate on a split.

        Args:
            config: of the models.
            dtype: that they compute in.
            device: where they run.
            split: "search", "held_out" or "learn".

        Raises:
            InputError: there is no such split, or it has no tasks.
        """
        costs = [
            self._engine.cost(task.requests(task.doc_ids), config, dtype, device)
            for task in self.tasks(split)
        ]
        return Cost(sum(c.n_tokens for c in costs), max(c.n_bytes for c in costs))

    def describe(self, model: "PreTrainedModel") -> Mapping[str, Any]:
        """Describe a model in the words of lm-eval's result files; see `Engine.describe`."""
        with quiet():
            return self._engine.describe(model)

    def n_missing(self, store: DocumentStore, split: str = "search", *, full: bool = False) -> int:
        """Count the documents of a split that a store does not know.

        Raises:
            InputError: there is no such split, or it has no tasks.
        """
        return sum(
            len(set(task.doc_ids) - store.known(task).keys())
            for task in self.tasks(split, full=full)
        )

    def score(
        self,
        model: "PreTrainedModel | Scorer | None",
        split: str = "search",
        *,
        full: bool = False,
        store: DocumentStore | None = None,
    ) -> Scores:
        """Score a model, with the weights it has now, on a split.

        Args:
            model: a causal language model on any device, or what scores one elsewhere; None where
                the store knows everything.
            split: "search", "held_out" or "learn".
            full: all documents, whatever the suite's limits.
            store: what it knows is not scored again, and what is new is added, block by block.

        Raises:
            CandidateError: logits or a value of a metric are not finite.
            InputError: there is no such split, or a task does not fit the model's context.
        """
        *_, scores = self.blocks(model, split, full=full, store=store, n_blocks=None)
        return scores

    def blocks(
        self,
        model: "PreTrainedModel | Scorer | None",
        split: str = "search",
        *,
        full: bool = False,
        store: DocumentStore | None = None,
        n_blocks: int | None = 5,
    ) -> Iterator[Scores]:
        """Score a model block by block, for a caller who may stop early.

        Documents come in one order for all candidates, each block with its share of each task and
        of each right answer; so two candidates that went equally far answered the same documents,
        and `longer.on(shorter)` pairs them in any case.

        Args:
            model: as for `score`; its weights must stay as they are until the last block.
            split: "search", "held_out" or "learn".
            full: all documents, whatever the suite's limits.
            store: as for `score`.
            n_blocks: into how many parts the documents go; fewer where no task has as many. None is
                as few as a kill may cost.

        Yields:
            The scores on all blocks so far, of the tasks that have a value on them.

        Raises:
            CandidateError: logits or a value of a metric are not finite.
            InputError: there is no such split, or a task does not fit the model's context.
        """
        store = store or NoStore()
        tasks = self.tasks(split, full=full)
        longest = max(task.n_documents for task in tasks)
        n_blocks = min(n_blocks or math.ceil(longest / _BLOCK), longest)
        ranges = [split_evenly(task.n_documents, n_blocks) for task in tasks]
        scored = [dict(store.known(task)) for task in tasks]
        scorer = model if model is None or isinstance(model, Scorer) else self.turn(model)
        try:
            for k in range(n_blocks):
                for task, of_task, documents in zip(tasks, ranges, scored, strict=True):
                    missing = [i for i in (task.order[p] for p in of_task[k]) if i not in documents]
                    if missing:
                        if scorer is None:
                            raise ValueError("without a model, the store must know every document")
                        new = scorer.score_documents(task, sorted(missing))
                        store.add(task, new)
                        documents |= new
                so_far = [
                    {i: documents[i] for i in task.order[: of_task[k].stop]}
                    for task, of_task, documents in zip(tasks, ranges, scored, strict=True)
                ]
                yield Scores(
                    tuple(
                        task.score(documents)
                        for task, documents in zip(tasks, so_far, strict=True)
                        if k == n_blocks - 1 or _has_values(documents)
                    )
                )
        finally:
            if isinstance(scorer, Turn):
                scorer.end()


def _build(suite: Suite, tokenizer: "PreTrainedTokenizerBase") -> "Splits":
    from mergesearch.tasks import build_tasks  # slow to import

    # Only here do lm-eval and datasets draw progress bars, and offer no switch.
    with quiet(), without_bars():
        return build_tasks(suite, tokenizer)


def _has_values(documents: Mapping[int, DocumentScore]) -> bool:
    """Tell whether the metric is defined on any of the documents."""
    return any(document.value is not None for document in documents.values())


def _check_capabilities(tasks: Sequence["BuiltTask"], engine: Engine, name: str) -> None:
    """Refuse tasks that ask what an engine cannot answer."""
    answers = engine.capabilities.requests
    for task in tasks:
        lacking = sorted({r.kind for r in task.requests(task.doc_ids) if type(r) not in answers})
        if lacking:
            others = ", ".join(other for other in ENGINES if other != name)
            raise InputError(
                f"task {task.id.task!r} asks for {' and '.join(lacking)}, which the engine "
                f"{name!r} does not answer; drop the task or take another engine ({others})"
            )
