"""The engine on torch: requests packed, behind prefixes, or in lm-eval's way.

lm-eval runs a context again for each continuation of more than one token and for each document
that begins like another, and the output layer at every position. Here what is alike runs once
(see `packing`), and the output layer only where a continuation is scored. Tokenisation and
truncation stay lm-eval's (see `hflm`), and so does the whole path of a model that gives other
answers when it is packed.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mergesearch.engines.base import Capabilities, Cost, Predictions
from mergesearch.engines.torch.batches import (
    LikelihoodBatches,
    generation_batches,
    likelihood_batches,
)
from mergesearch.engines.torch.cost import backward_bytes, cost
from mergesearch.engines.torch.generation import continuations
from mergesearch.engines.torch.limits import Limits, longest_packed
from mergesearch.engines.torch.loglikelihood import loglikelihoods
from mergesearch.engines.torch.loss import divergences, losses, predictions, recomputed
from mergesearch.engines.torch.prefix import Prefixes
from mergesearch.engines.torch.probing import FastPaths, probe
from mergesearch.errors import CandidateError, InputError
from mergesearch.products import quicken
from mergesearch.requests import (
    Generation,
    Likelihood,
    LogLikelihood,
    Request,
    Response,
    RollingLogLikelihood,
)
from mergesearch.runtime import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from mergesearch.engines.torch.hflm import Harness

log = logging.getLogger(__name__)

#: lm-eval's seed, for tasks that sample.
_SEED = 1234

#: Errors by which transformers refuses settings, a package that they need and is not here included.
_UNABLE = (AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)

#: How many times smaller batches become before a device is too small.
_MOST_HALVED = 1 << 14

BatchesT = TypeVar("BatchesT")


@dataclass(frozen=True)
class _Loaded:
    """A model with the weights it has now, and how it can be asked."""

    harness: "Harness"
    paths: FastPaths
    prefixes: Prefixes
    #: Gives its linear layers back what they compute by.
    slow_down: Callable[[], None]


class TorchEngine:
    """An `Engine` that runs the module itself, on batches that are made once.

    Args:
        tokenizer: of the models; its padding is set as lm-eval sets it.
        runtime: its device is where all models must be, "auto" wherever each is; its batch size is
            rows a forward pass, and None lets their tokens decide.

    Raises:
        InputError: there is no such device.
    """

    capabilities = Capabilities(
        frozenset({LogLikelihood, RollingLogLikelihood, Generation}), loss=True
    )

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        runtime: Runtime = Runtime(),  # noqa: B008  frozen
    ) -> None:
        self._tokenizer = tokenizer
        self._batch_size = runtime.batch_size
        self._device = None if runtime.device == "auto" else runtime.torch_device
        self._paths: WeakKeyDictionary[PreTrainedModel, FastPaths] = WeakKeyDictionary()
        #: By the requests and what else decides how they are cut and batched.
        self._batches: dict[Hashable, Any] = {}
        self._divisor = 1
        self._model: _Loaded | None = None

    def load(self, model: "PreTrainedModel") -> None:
        """Take a model with the weights it has now, and forget the prefixes of others.

        Raises:
            CandidateError: the model's logits are not finite.
            InputError: the model is on another device than the runtime says.
        """
        if self._device is not None and self._device.type != model.device.type:
            raise InputError(
                f"the model must be on {self._device}, as the runtime says, "
                f"but is on {model.device}; move it there"
            )
        self.unload()
        harness = self._harness(model, self._batch_size or 16)
        if model not in self._paths:
            self._paths[model] = probe(harness)
        self._model = _Loaded(harness, self._paths[model], Prefixes(model), quicken(model))

    def unload(self) -> None:
        """Let go of the model and its prefixes."""
        if self._model is not None:
            self._model.slow_down()
        self._model = None

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests, in their order; see `Engine.answer` for what is raised."""
        by_kind: dict[type[Request], list[int]] = {}
        for i, request in enumerate(requests):
            by_kind.setdefault(type(request), []).append(i)
        while True:
            try:
                answers: dict[int, Response] = {}
                for kind, members in by_kind.items():
                    asked = tuple(requests[i] for i in members)
                    reply = self._generate if kind is Generation else self._likelihoods
                    answers.update(zip(members, reply(cast(Any, asked)), strict=True))
                return [answers[i] for i in range(len(requests))]
            except torch.OutOfMemoryError:
                self._halve_batches()

    def loss(self, requests: Sequence[Request], *, checkpointing: bool = False) -> Tensor:
        """Compute negative log-likelihoods; see `DifferentiableEngine.loss`.

        All of their graph is in memory until it is gone backwards through, so that the caller
        decides by the number of requests what that takes. Prefixes are never shared, so the
        weights may change between two calls.
        """
        return self._graded(
            requests, lambda batches, _: losses(self._model_now, batches), checkpointing
        )

    def divergence(
        self,
        requests: Sequence[Request],
        references: Sequence[Predictions],
        *,
        checkpointing: bool = False,
    ) -> Tensor:
        """Compute divergences; see `DifferentiableEngine.divergence`."""

        def of_kind(batches: LikelihoodBatches, members: Sequence[int]) -> Tensor:
            return divergences(self._model_now, batches, [references[i] for i in members])

        return self._graded(requests, of_kind, checkpointing)

    def predictions(self, requests: Sequence[Request]) -> list[Predictions]:
        """Gather the likeliest tokens; see `DifferentiableEngine.predictions`."""
        found: dict[int, Predictions] = {}
        for members, batches in self._uncached(requests):
            found.update(zip(members, predictions(self._model_now, batches), strict=True))
        return [found[i] for i in range(len(requests))]

    def backward_bytes(
        self,
        requests: Sequence[Request],
        config: "PreTrainedConfig",
        dtype: torch.dtype,
        device: torch.device,
        *,
        checkpointing: bool,
        rank: int | None,
    ) -> int:
        """Estimate the peak of a forward and backward pass; see `DifferentiableEngine`."""
        limits = Limits.of(config, dtype, device.type, self._batch_size)
        return backward_bytes(
            requests, self._tokenizer, limits, checkpointing=checkpointing, rank=rank
        )

    def cost(
        self,
        requests: Sequence[Request],
        config: "PreTrainedConfig",
        dtype: torch.dtype,
        device: torch.device,
    ) -> Cost:
        """Estimate the cost of requests, at least one; see `Engine.cost`."""
        limits = Limits.of(config, dtype, device.type, self._batch_size)
        return cost(requests, self._tokenizer, limits)

    def describe(self, model: "PreTrainedModel") -> Mapping[str, Any]:
        """Describe a model and its tokenizer; see `Engine.describe`."""
        return self._harness(model, self._batch_size or 1).describe()

    def _graded(
        self,
        requests: Sequence[Request],
        of_kind: Callable[[LikelihoodBatches, Sequence[int]], Tensor],
        checkpointing: bool,
    ) -> Tensor:
        """Compute a value of each request, kind by kind, (requests,)."""
        model = self._model_now
        result = torch.zeros(len(requests), device=model.device)
        with recomputed(model) if checkpointing else nullcontext():
            for members, batches in self._uncached(requests):
                values = of_kind(batches, members)
                index = torch.tensor(members, device=values.device)
                result = result.to(values.dtype).index_copy(0, index, values)
        return result

    def _uncached(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[list[int], LikelihoodBatches]]:
        """Cut requests into batches, kind by kind, with the indices of each.

        They are not remembered: what is learned from comes in another company each time.
        """
        if any(isinstance(request, Generation) for request in requests):
            raise ValueError("what is generated has no loss")
        loaded = self._loaded
        paths = replace(loaded.paths, shares=False)
        for kind in dict.fromkeys(map(type, requests)):
            members = [i for i, request in enumerate(requests) if type(request) is kind]
            asked = cast(Any, tuple(requests[i] for i in members))
            yield members, likelihood_batches(asked, loaded.harness, paths, self._limits())

    @property
    def _model_now(self) -> "PreTrainedModel":
        return self._loaded.harness.model

    def _limits(self) -> Limits:
        model = self._model_now
        limits = Limits.of(model.config, model.dtype, model.device.type, self._batch_size)
        return replace(limits, divisor=self._divisor)

    @property
    def _loaded(self) -> _Loaded:
        if self._model is None:
            raise RuntimeError("an engine answers after a model was loaded")
        return self._model

    def _harness(self, model: "PreTrainedModel", batch_size: int) -> "Harness":
        from mergesearch.engines.torch.hflm import Harness  # slow to import

        return Harness(model, self._tokenizer, batch_size)

    def _likelihoods(
        self, requests: tuple[LogLikelihood, ...] | tuple[RollingLogLikelihood, ...]
    ) -> list[Likelihood] | list[float]:
        loaded = self._loaded
        batches: LikelihoodBatches = self._once(likelihood_batches, requests, loaded.paths)
        answers: dict[int, Likelihood] = {}
        for batch in batches.batches:
            answers.update(loglikelihoods(loaded.harness.model, loaded.prefixes, batch))
        plain = loaded.harness.plain([batches.pairs[i] for i in batches.unpacked])
        answers.update(zip(batches.unpacked, plain, strict=True))
        logprobs = np.array([answers[i][0] for i in range(len(batches.pairs))])
        if not np.isfinite(logprobs).all():  # which may spoil what stands beside it in a row
            raise CandidateError("log-likelihoods are not finite")
        if isinstance(requests[0], LogLikelihood):
            return [answers[i] for i in range(len(requests))]
        return np.bincount(batches.owners, logprobs, minlength=len(requests)).tolist()

    def _generate(self, requests: tuple[Generation, ...]) -> list[str]:
        loaded = self._loaded
        own = loaded.harness.model.generation_config.to_json_string(ignore_metadata=True)
        batches = self._once(generation_batches, requests, loaded.paths, own)
        torch.manual_seed(_SEED)
        texts: dict[int, str] = {}
        try:
            for batch in batches:
                texts.update(continuations(loaded.harness, loaded.prefixes, batch))
        except torch.OutOfMemoryError:
            raise
        except _UNABLE as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                "transformers cannot generate as the task and the model's generation_config.json "
                f"ask ({reason}); change one of them"
            ) from error
        return [texts[i] for i in range(len(requests))]

    def _once(
        self,
        cut: Callable[..., BatchesT],
        requests: tuple[Request, ...],
        paths: FastPaths,
        *settings: str,
    ) -> BatchesT:
        """Cut requests of one kind into batches, the first time that they are asked.

        Args:
            cut: makes the batches.
            requests: of one kind.
            paths: that the model can go.
            settings: of the model that decide about its batches beside its size.
        """
        harness = self._loaded.harness
        room = harness.max_length, longest_packed(harness), str(harness.device)
        key = (requests, paths, room, settings)
        if key not in self._batches:
            self._batches[key] = cut(requests, harness, paths, self._limits())
        return self._batches[key]

    def _halve_batches(self) -> None:
        """Halve all batches, from now on and for every model.

        Raises:
            InputError: they have been halved so often that a batch is a single row.
        """
        if self._divisor >= _MOST_HALVED:
            raise InputError(
                "the device's memory does not hold the model and a single row of prompts; take "
                "another device, shorter prompts, or a smaller model"
            )
        self._divisor *= 2
        self._batches.clear()
        log.warning("the device's memory is full: batches are halved from now on")
