"""The protocol of engines, which answer requests with a model's weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.plugins import Table
from mergesearch.requests import Request, Response
from mergesearch.runtime import Runtime

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Capabilities:
    """The requests that an engine answers, and whether these have gradients."""

    #: The kinds of requests that it answers.
    requests: frozenset[type[Request]]
    #: It is a `DifferentiableEngine`.
    loss: bool = False


@dataclass(frozen=True)
class Cost:
    """The cost of answering requests, but for what a model's own context cuts off."""

    #: Tokens that the model reads or writes; what requests share counts once.
    n_tokens: int
    #: Bytes at the peak, beside the weights.
    n_bytes: int


@dataclass(frozen=True)
class Predictions:
    """The likeliest tokens at the positions where a request is scored."""

    #: int32 (positions, k), the likeliest first; k is the vocabulary at most.
    ids: "torch.Tensor"
    #: float32 (positions, k).
    logprobs: "torch.Tensor"


class UnfitRequestError(InputError):
    """A request that no batch of a model can hold."""


class Engine(Protocol):
    """Answers requests with the weights that a model in memory has when it is loaded.

    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> from mergesearch.engines import engine_of
    >>> from mergesearch.requests import Generation, LogLikelihood
    >>> engine = engine_of(AutoTokenizer.from_pretrained("models/base"))
    >>> engine.load(AutoModelForCausalLM.from_pretrained("models/one"))
    >>> requests = [LogLikelihood("w1 w2", " w3"), Generation("w1 w2", {"max_gen_toks": 2})]
    >>> likelihood, text = engine.answer(requests)
    >>> engine.unload()
    """

    @property
    def capabilities(self) -> Capabilities:
        """The requests that it answers."""

    def load(self, model: "PreTrainedModel") -> None:
        """Take the weights that a model in memory has now.

        They must stay as they are until `unload`, or the next model is loaded: an engine may run
        the module itself, or a copy of its tensors.

        Raises:
            CandidateError: the model's logits are not finite.
            InputError: the engine cannot run such a model, or not where it is.
        """

    def unload(self) -> None:
        """Let go of the model, and of all that was computed of its weights."""

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests, in their order, by the model that was loaded last.

        Raises:
            CandidateError: the model's logits are not finite.
            UnfitRequestError: a request does not fit the model's context.
            InputError: the device is too small.
        """

    def cost(
        self,
        requests: Sequence[Request],
        config: "PreTrainedConfig",
        dtype: "torch.dtype",
        device: "torch.device",
    ) -> Cost:
        """Estimate the cost of answering requests by a model that need not be there yet.

        Args:
            requests: at least one.
            config: of the model.
            dtype: that it computes in.
            device: where it runs.
        """

    def describe(self, model: "PreTrainedModel") -> Mapping[str, Any]:
        """Describe a model and its tokenizer in the words of lm-eval's result files.

        What belongs into their `config` is under that key.
        """


class DifferentiableEngine(Engine, Protocol):
    """An engine whose answers have gradients."""

    def loss(self, requests: Sequence[Request], *, checkpointing: bool = False) -> "torch.Tensor":
        """Compute negative log-likelihoods by the model that was loaded last.

        Args:
            requests: of log-likelihoods.
            checkpointing: compute activations again in the backward pass, for less memory.

        Returns:
            Of each continuation or text, (requests,), in nats; differentiable with respect to
            those of the model's parameters that require a gradient.

        Raises:
            UnfitRequestError: a request does not fit the model's context.
        """

    def predictions(self, requests: Sequence[Request]) -> list[Predictions]:
        """Gather what the model that was loaded last predicts where requests are scored.

        Raises:
            UnfitRequestError: a request does not fit the model's context.
        """

    def divergence(
        self,
        requests: Sequence[Request],
        references: Sequence[Predictions],
        *,
        checkpointing: bool = False,
    ) -> "torch.Tensor":
        """Compute KL(reference || model), the mean of each request's scored positions.

        All tokens that a reference lacks are one outcome.

        Args:
            requests: of log-likelihoods.
            references: of each request, from `predictions` of another model.
            checkpointing: as for `loss`.

        Returns:
            (requests,), in nats; differentiable as in `loss`.

        Raises:
            UnfitRequestError: a request does not fit the model's context.
        """

    def backward_bytes(
        self,
        requests: Sequence[Request],
        config: "PreTrainedConfig",
        dtype: "torch.dtype",
        device: "torch.device",
        *,
        checkpointing: bool,
        rank: int | None,
    ) -> int:
        """Estimate the peak of a forward and backward pass over requests, in bytes.

        Args:
            requests: of one call of `loss`.
            config: of the model.
            dtype: that it computes in.
            device: where it runs.
            checkpointing: as for `loss`.
            rank: of what is added to linear layers in place of gradients of weights; None where
                weights have gradients, one at a time.

        Returns:
            What there is beside the weights.
        """


@runtime_checkable
class EngineFactory(Protocol):
    """Makes an engine for the models of one tokenizer."""

    def __call__(self, tokenizer: "PreTrainedTokenizerBase", runtime: Runtime) -> Engine:
        """Make an engine.

        Args:
            tokenizer: of all models that will be loaded; the engine may set its padding.
            runtime: for the device and the rows of a batch.

        Raises:
            InputError: there is no such device.
        """


def _torch(tokenizer: "PreTrainedTokenizerBase", runtime: Runtime) -> Engine:
    from mergesearch.engines.torch.engine import TorchEngine

    return TorchEngine(tokenizer, runtime)


def _vllm(tokenizer: "PreTrainedTokenizerBase", runtime: Runtime) -> Engine:
    from mergesearch.engines.vllm.engine import VllmEngine

    return VllmEngine(tokenizer, runtime)


#: Every engine by its name in `Runtime.engine`.
ENGINES: Table[EngineFactory] = Table(
    "mergesearch.engines",
    EngineFactory,  # type: ignore[type-abstract]
    {"torch": _torch, "vllm": _vllm},
)


def engine_of(
    tokenizer: "PreTrainedTokenizerBase",
    runtime: Runtime = Runtime(),  # noqa: B008  frozen
) -> Engine:
    """Make the engine that a runtime names.

    Raises:
        InputError: there is no such engine, or no such device.
    """
    if runtime.engine not in ENGINES:
        raise InputError(unknown("engine", runtime.engine, ENGINES))
    return ENGINES[runtime.engine](tokenizer, runtime)


def differentiable(engine: Engine) -> DifferentiableEngine:
    """Give an engine as one whose answers have gradients.

    Raises:
        InputError: they have none.
    """
    if not engine.capabilities.loss:
        raise InputError(
            "learned coefficients need an engine whose answers have gradients; take engine: torch"
        )
    return cast("DifferentiableEngine", engine)
