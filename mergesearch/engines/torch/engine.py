"""Requests on a live model: packed, behind shared prefixes, or by lm-eval's own path.

lm-eval runs a context again for each continuation of more than one token and for each document
that begins like another, and the output layer at every position. Here what is alike runs once
(see `packing`), and the output layer only where a continuation is scored. Prompts, tokenisation
and truncation stay lm-eval's (see `encoding`), and so does the whole path of a model that gives
other answers when it is packed.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lm_eval.api.instance import Instance
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mergesearch.engines.torch.generation import PromptBatch, continuations, prompt_batches
from mergesearch.engines.torch.hflm import Harness
from mergesearch.engines.torch.limits import Limits
from mergesearch.engines.torch.loglikelihood import Answer, loglikelihoods
from mergesearch.engines.torch.packing import Batch, Request, batch_of, contexts_of, groups_of
from mergesearch.engines.torch.prefix import Prefixes
from mergesearch.engines.torch.probing import FastPaths, longest_packed, probe
from mergesearch.errors import CandidateError, InputError
from mergesearch.tasks.built import BuiltTask

log = logging.getLogger(__name__)

#: lm-eval's seed, for tasks that sample.
_SEED = 1234

#: How many times smaller batches become before a device is too small.
_MOST_HALVED = 1 << 14

#: Tokens that sharing a prefix must save: about what one more forward pass costs.
LEAST_SAVING = 64


@dataclass(frozen=True)
class _Likelihoods:
    """Log-likelihood requests as batches."""

    instances: tuple[Instance, ...]
    requests: tuple[Request, ...]
    #: Of each request the instance it is a part of.
    parts: np.ndarray
    batches: tuple[Batch, ...]
    #: Requests that go lm-eval's own way.
    unpacked: tuple[int, ...]


@dataclass(frozen=True)
class _Prompts:
    """Requests to generate as batches; one that is asked n times is there n times."""

    instances: tuple[Instance, ...]
    batches: tuple[PromptBatch, ...]


_Work = list[_Likelihoods | _Prompts]


class Scorer:
    """Answers the requests of tasks; what does not change between candidates is kept.

    Args:
        tokenizer: of the models.
        batch_size: rows a forward pass; None lets their tokens decide.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, batch_size: int | None) -> None:
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self._abilities: WeakKeyDictionary[PreTrainedModel, FastPaths] = WeakKeyDictionary()
        #: By what decides how requests are cut and batched.
        self._work: dict[tuple[object, ...], _Work] = {}
        self._divisor = 1

    def sit(self, model: PreTrainedModel) -> "Sitting":
        """A model, with the weights it has now, ready to answer.

        Raises:
            CandidateError: the model's logits are not finite.
        """
        harness = Harness(model, self.tokenizer, self.batch_size or 16)
        if model not in self._abilities:
            self._abilities[model] = probe(harness)
        return Sitting(self, harness, self._abilities[model])

    def work(
        self, task: BuiltTask, doc_ids: Sequence[int], harness: Harness, ability: FastPaths
    ) -> _Work:
        """The batches of some documents of a task, made once."""
        place = (harness.max_length, longest_packed(harness), str(harness.device))
        key = (task.fingerprint, tuple(doc_ids), ability, place)
        if key not in self._work:
            self._work[key] = self._batched(task.requests(doc_ids), harness, ability)
        return self._work[key]

    def shrink(self) -> None:
        """Halve all batches, from now on and for every candidate.

        Raises:
            InputError: they have been halved so often that a batch is a single row.
        """
        if self._divisor >= _MOST_HALVED:
            raise InputError(
                "the device's memory does not hold the model and a single row of prompts; take "
                "another device, shorter prompts, or a smaller model"
            )
        self._divisor *= 2
        self._work.clear()
        log.warning("the device's memory is full: batches are halved from now on")

    def _batched(
        self, instances: Sequence[Instance], harness: Harness, ability: FastPaths
    ) -> _Work:
        by_kind: dict[str, list[Instance]] = {}
        for instance in instances:
            by_kind.setdefault(instance.request_type, []).append(instance)
        model = harness.model
        limits = Limits.of(model.config, model.dtype, model.device.type, self.batch_size)
        limits = replace(limits, divisor=self._divisor)
        return [
            _prompts(members, harness, ability, limits)
            if kind == "generate_until"
            else _likelihoods(kind, members, harness, ability, limits)
            for kind, members in by_kind.items()
        ]


class Sitting:
    """One model that answers, with the weights it has now; they must stay as they are."""

    def __init__(self, scorer: Scorer, harness: Harness, ability: FastPaths) -> None:
        self._scorer = scorer
        self._harness = harness
        self._ability = ability
        self._prefixes = Prefixes(harness.model)

    def answer(self, task: BuiltTask, doc_ids: Sequence[int]) -> None:
        """Replace the responses of some documents' requests by those of the model.

        Raises:
            CandidateError: the model's logits are not finite.
            InputError: the device is too small for a single row.
        """
        while True:
            try:
                for work in self._scorer.work(task, doc_ids, self._harness, self._ability):
                    if isinstance(work, _Prompts):
                        self._generate(work)
                    else:
                        self._score(work)
                return
            except torch.OutOfMemoryError:
                self._scorer.shrink()

    def _score(self, work: _Likelihoods) -> None:
        answers: dict[int, Answer] = {}
        for batch in work.batches:
            answers.update(loglikelihoods(self._harness.model, self._prefixes, batch))
        plain = self._harness.plain([work.requests[i] for i in work.unpacked])
        answers.update(zip(work.unpacked, plain, strict=True))
        logprobs = np.array([answers[i][0] for i in range(len(work.requests))])
        if not np.isfinite(logprobs).all():  # which may spoil what stands beside it in a row
            raise CandidateError("log-likelihoods are not finite")
        sums = np.bincount(work.parts, logprobs, minlength=len(work.instances))
        for i, instance in enumerate(work.instances):
            rolling = instance.request_type == "loglikelihood_rolling"
            response = float(sums[i]) if rolling else answers[i]
            instance.resps = [response] * instance.repeats
            instance.filtered_resps = {}

    def _generate(self, work: _Prompts) -> None:
        torch.manual_seed(_SEED)
        texts: dict[int, str] = {}
        for batch in work.batches:
            texts.update(continuations(self._harness, self._prefixes, batch))
        found = iter(texts[i] for i in range(len(texts)))
        for instance in work.instances:
            instance.resps = [next(found) for _ in range(instance.repeats)]
            instance.filtered_resps = {}


def _likelihoods(
    kind: str, instances: Sequence[Instance], harness: Harness, ability: FastPaths, limits: Limits
) -> _Likelihoods:
    requests, parts = harness.encode(kind, instances)
    longest = longest_packed(harness) if ability.packs else 0
    fits = [len(context) + len(continuation) - 1 <= longest for context, continuation in requests]
    unpacked = tuple(i for i, fit in enumerate(fits) if not fit)
    if ability.packs and unpacked:
        log.warning(
            "%d of %d requests are longer than the model's attention window (%d tokens), and take "
            "lm-eval's own, slower path",
            *(len(unpacked), len(requests), longest),
        )
    numbered = ((i, *request) for i, request in enumerate(requests) if fits[i])
    packed = contexts_of(numbered, limits.columns_of_a_row)
    batches: list[Batch] = []
    for group in groups_of(packed, LEAST_SAVING if ability.shares else None):
        for rows, _, _ in limits.cut(group):
            batches.append(batch_of(group.prefix, rows, harness.device))
    return _Likelihoods(tuple(instances), tuple(requests), parts, tuple(batches), unpacked)


def _prompts(
    instances: Sequence[Instance], harness: Harness, ability: FastPaths, limits: Limits
) -> _Prompts:
    repeated = [instance for instance in instances for _ in range(instance.repeats)]
    batches = prompt_batches(
        [harness.prompt(instance) for instance in repeated],
        least_saving=LEAST_SAVING if ability.shares else None,
        rows_of=limits.prompts,
        pad_id=harness.tokenizer.pad_token_id,
        device=harness.device,
    )
    return _Prompts(tuple(instances), tuple(batches))
