"""The tasks of a suite, built once, and any number of candidates scored on them."""

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mergesearch.config import unknown
from mergesearch.errors import CandidateError, InputError
from mergesearch.evaluation.scorer import Scorer
from mergesearch.evaluation.scores import Scores, TaskScore
from mergesearch.evaluation.suite import Suite
from mergesearch.evaluation.tasks import BuiltTask, build_tasks


class Evaluator:
    """Scores candidates on a suite; prompts are rendered and tokenised once for all of them.

        evaluator = Evaluator(load_suite(path), tokenizer)
        for recipe in recipes:
            ...  # write the merged weights into the model
            print(evaluator.score(model).total)

    Args:
        suite: both splits are built at once, so that what is wrong shows before a search.
        tokenizer: of all candidates. It is copied, and stays as it is.
        batch_size: rows a forward pass.

    Raises:
        InputError: a task of the suite cannot be built; the message names it.
    """

    def __init__(
        self, suite: Suite, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 16
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size=}")
        self.suite = suite
        tokenizer = copy.deepcopy(tokenizer)
        # Only here do lm-eval and datasets draw progress bars, and offer no switch.
        with _quiet(), contextlib.redirect_stderr(io.StringIO()):
            self._splits = build_tasks(suite, tokenizer)
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

    def score_task(self, model: PreTrainedModel, task: BuiltTask) -> TaskScore:
        """Score a model, with the weights it has now, on one task.

        Args:
            model: a causal language model on any device.
            task: from `tasks`.

        Raises:
            CandidateError: logits or a value of the metric are not finite.
            InputError: the task does not fit the model's context.
        """
        try:
            with _quiet():
                self._scorer.answer(model, task.requests)
            return task.grade()
        except AssertionError as error:  # how lm-eval states what a request must fit
            reason = str(error) or "a choice has no tokens, or more than the context holds"
            raise InputError(f"task {task.name!r} does not fit the model: {reason}") from error
        except CandidateError as error:
            raise CandidateError(f"task {task.name!r}: {error}") from error

    def score(
        self,
        model: PreTrainedModel,
        split: str = "search",
        *,
        full: bool = False,
        known: Callable[[BuiltTask], TaskScore | None] | None = None,
        on_task: Callable[[TaskScore], None] | None = None,
    ) -> Scores:
        """Score a model, with the weights it has now, on a split, task by task.

        Args:
            model: a causal language model on any device.
            split: "search" or "held_out".
            full: all documents, whatever the suite's limits.
            known: gives a task's stored score, or None; it is used where its fingerprint is the
                task's.
            on_task: called with each new score before the next task starts, to store it.

        Raises:
            CandidateError: logits or a value of a metric are not finite.
            InputError: there is no such split, or a task does not fit the model's context.
        """
        scores = []
        for task in self.tasks(split, full=full):
            score = known(task) if known else None
            if score is None or score.fingerprint != task.fingerprint:
                score = self.score_task(model, task)
                if on_task:
                    on_task(score)
            # Name and weight are the suite's, and no part of what was scored.
            scores.append(replace(score, task=task.name, weight=task.weight))
        return Scores(tuple(scores))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the warnings of lm-eval, datasets and transformers to themselves."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
