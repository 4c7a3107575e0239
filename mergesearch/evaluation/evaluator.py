"""The tasks of a suite, built once, and any number of candidates scored on them."""

import contextlib
import copy
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mergesearch.config import unknown
from mergesearch.engines.torch.cost import Cost, cost
from mergesearch.engines.torch.engine import Scorer, Sitting
from mergesearch.engines.torch.limits import Limits
from mergesearch.errors import CandidateError, InputError
from mergesearch.logs import quiet
from mergesearch.scores.scores import DocumentScore, Scores
from mergesearch.tasks.building import build_tasks
from mergesearch.tasks.built import BuiltTask
from mergesearch.tasks.order import split_evenly
from mergesearch.tasks.suite import Suite

#: Documents of a task between two writes to a store: what a kill may cost.
_BLOCK = 256


class DocumentStore(Protocol):
    """Remembers what one candidate scored."""

    def known(self, task: BuiltTask) -> Mapping[int, DocumentScore]:
        """The documents of a task that were scored before, by id."""

    def add(self, task: BuiltTask, documents: Mapping[int, DocumentScore]) -> None:
        """Keep newly scored documents; they are safe when this returns."""


class NoStore:
    """A store that keeps nothing."""

    def known(self, task: BuiltTask) -> Mapping[int, DocumentScore]:
        """Nothing."""
        return {}

    def add(self, task: BuiltTask, documents: Mapping[int, DocumentScore]) -> None:
        """Forget."""


class Evaluator:
    """Scores candidates on a suite; prompts are rendered and tokenised once for all of them.

        evaluator = Evaluator(load_suite(path), tokenizer)
        for recipe in recipes:
            ...  # write the merged weights into the model
            print(evaluator.score(model).total)

    Args:
        suite: both splits are built at once, so that what is wrong shows before a search.
        tokenizer: of all candidates. It is copied, and stays as it is.
        device: where all candidates run, which is then checked; "auto" is where each model is.
        batch_size: rows a forward pass; None lets their tokens decide.

    Raises:
        InputError: a task of the suite cannot be built; the message names it.
    """

    def __init__(
        self,
        suite: Suite,
        tokenizer: PreTrainedTokenizerBase,
        *,
        device: torch.device | str = "auto",
        batch_size: int | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size=}")
        self.suite = suite
        tokenizer = copy.deepcopy(tokenizer)
        # Only here do lm-eval and datasets draw progress bars, and offer no switch.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            self._splits = build_tasks(suite, tokenizer)
        self._device = None if device == "auto" else torch.device(device)
        self._scorer = Scorer(tokenizer, batch_size)

    def tasks(self, split: str = "search", *, full: bool = False) -> tuple[BuiltTask, ...]:
        """The tasks of a split.

        Args:
            split: "search" or "held_out".
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

    def cost(
        self,
        config: PreTrainedConfig,
        dtype: torch.dtype,
        device: torch.device,
        split: str = "search",
    ) -> Cost:
        """What scoring one candidate on a split takes.

        Args:
            config: of the models.
            dtype: that they compute in.
            device: where they run.
            split: "search" or "held_out".

        Raises:
            InputError: there is no such split, or it has no tasks.
        """
        limits = Limits.of(config, dtype, device.type, self._scorer.batch_size)
        costs = [cost(task, self._scorer.tokenizer, limits) for task in self.tasks(split)]
        return Cost(sum(c.n_tokens for c in costs), max(c.n_bytes for c in costs))

    def n_missing(self, store: DocumentStore, split: str = "search", *, full: bool = False) -> int:
        """How many documents of a split a store does not know.

        Raises:
            InputError: there is no such split, or it has no tasks.
        """
        return sum(
            len(set(task.doc_ids) - store.known(task).keys())
            for task in self.tasks(split, full=full)
        )

    def score(
        self,
        model: PreTrainedModel | None,
        split: str = "search",
        *,
        full: bool = False,
        store: DocumentStore | None = None,
    ) -> Scores:
        """Score a model, with the weights it has now, on a split.

        Args:
            model: a causal language model on any device; None where the store knows everything.
            split: "search" or "held_out".
            full: all documents, whatever the suite's limits.
            store: what it knows is not scored again, and what is new is added, block by block.

        Raises:
            CandidateError: logits or a value of a metric are not finite.
            InputError: there is no such split, or a task does not fit the model's context.
        """
        longest = max(task.n_documents for task in self.tasks(split, full=full))
        n_blocks = math.ceil(longest / _BLOCK)
        *_, scores = self.blocks(model, split, full=full, store=store, n_blocks=n_blocks)
        return scores

    def blocks(
        self,
        model: PreTrainedModel | None,
        split: str = "search",
        *,
        full: bool = False,
        store: DocumentStore | None = None,
        n_blocks: int = 5,
    ) -> Iterator[Scores]:
        """Score a model block by block, for a caller who may stop early.

        Documents come in one order for all candidates, each block with its share of each task and
        of each right answer; so two candidates that went equally far answered the same documents,
        and `longer.on(shorter)` pairs them in any case.

        Args:
            model: as for `score`; its weights must stay as they are until the last block.
            split: "search" or "held_out".
            full: all documents, whatever the suite's limits.
            store: as for `score`.
            n_blocks: into how many parts the documents go; fewer where no task has as many.

        Yields:
            The scores on all blocks so far, of the tasks that have a value on them.

        Raises:
            CandidateError: logits or a value of a metric are not finite.
            InputError: there is no such split, or a task does not fit the model's context.
        """
        store = store or NoStore()
        tasks = self.tasks(split, full=full)
        n_blocks = min(n_blocks, max(task.n_documents for task in tasks))
        places = [split_evenly(task.n_documents, n_blocks) for task in tasks]
        found = [dict(store.known(task)) for task in tasks]
        sitting = None
        for k in range(n_blocks):
            for task, ranges, documents in zip(tasks, places, found, strict=True):
                missing = [i for i in (task.order[p] for p in ranges[k]) if i not in documents]
                if missing:
                    if model is None:
                        raise ValueError("without a model, the store must know every document")
                    sitting = sitting or self._sit(model)
                    new = _answer(sitting, task, sorted(missing))
                    store.add(task, new)
                    documents |= new
            so_far = [
                {i: documents[i] for i in task.order[: ranges[k].stop]}
                for task, ranges, documents in zip(tasks, places, found, strict=True)
            ]
            yield Scores(
                tuple(
                    task.score(documents)
                    for task, documents in zip(tasks, so_far, strict=True)
                    if k == n_blocks - 1 or _has_values(documents)
                )
            )

    def _sit(self, model: PreTrainedModel) -> Sitting:
        if self._device is not None and self._device.type != model.device.type:
            raise InputError(
                f"the model must be on {self._device}, as the evaluator was told, "
                f"but is on {model.device}; move it there"
            )
        with quiet():
            return self._scorer.sit(model)


def _has_values(documents: Mapping[int, DocumentScore]) -> bool:
    """Whether the metric is defined on any of the documents."""
    return any(document.value is not None for document in documents.values())


def _answer(sitting: Sitting, task: BuiltTask, doc_ids: Sequence[int]) -> dict[int, DocumentScore]:
    """The scores of some documents of a task."""
    try:
        with quiet():
            sitting.answer(task, doc_ids)
        return task.grade(doc_ids)
    except AssertionError as error:  # how lm-eval states what a request must fit
        reason = str(error) or "a choice has no tokens, or more than the context holds"
        raise InputError(f"task {task.name!r} does not fit the model: {reason}") from error
    except CandidateError as error:
        raise CandidateError(f"task {task.name!r}: {error}") from error
