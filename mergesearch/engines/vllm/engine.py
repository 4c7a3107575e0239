"""The engine on vLLM, which writes texts; all else is the engine on torch.

Log-likelihoods stay with torch, which answers what prompts share once and where vLLM would run a
prompt again for each of its choices.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mergesearch.engines.base import Cost, UnfitRequestError
from mergesearch.engines.torch.engine import TorchEngine
from mergesearch.engines.vllm.live import LiveVllm
from mergesearch.engines.vllm.sampling import check_settings, n_new, sampling_params
from mergesearch.errors import InputError
from mergesearch.requests import Generation, Request
from mergesearch.runtime import Runtime

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: Tokens of a prompt with its text that vLLM has room for at least.
_LEAST_ROOM = 256


class VllmEngine(TorchEngine):
    """The `TorchEngine`, but that a live vLLM writes the texts.

    vLLM starts with the first text that is asked for. It takes the weights of each further model
    in place; only a model of another configuration, or a prompt that is much longer than those
    before, has it start again.

    Args:
        tokenizer: as for `TorchEngine`.
        runtime: as for `TorchEngine`.

    Raises:
        InputError: vLLM is not installed, or there is no such device.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        runtime: Runtime = Runtime(),  # noqa: B008  frozen
    ) -> None:
        if find_spec("vllm") is None:
            raise InputError(
                "the engine vllm needs the package vllm; install mergesearch[vllm], or take "
                "engine: torch"
            )
        super().__init__(tokenizer, runtime)
        self._live: LiveVllm | None = None
        #: Whether vLLM has the weights of the model that was loaded last.
        self._taken = False

    def load(self, model: "PreTrainedModel") -> None:
        """Take a model with the weights it has now; see `Engine.load`.

        vLLM takes them when the first text is asked for.
        """
        self._taken = False
        super().load(model)

    def cost(
        self,
        requests: Sequence[Request],
        config: "PreTrainedConfig",
        dtype: "torch.dtype",
        device: "torch.device",
    ) -> Cost:
        """Estimate the cost of requests; where some are texts, vLLM's weights are in it."""
        cost = super().cost(requests, config, dtype, device)
        if not any(isinstance(request, Generation) for request in requests):
            return cost
        return replace(cost, n_bytes=cost.n_bytes + _n_parameters(config) * dtype.itemsize)

    def _generate(self, requests: tuple[Generation, ...]) -> list[str]:
        harness = self._loaded.harness
        model = harness.model
        prompts = [harness.prompt(request) for request in requests]
        settings = [check_settings(model.generation_config, p.options) for p in prompts]
        longest = max(
            len(prompt.tokens) + n_new(prompt, of)
            for prompt, of in zip(prompts, settings, strict=True)
        )
        if longest > harness.max_length:
            raise UnfitRequestError(
                f"a prompt and the text behind it are {longest} tokens, but the model's context is "
                f"{harness.max_length}; lower max_new_tokens in generation_config.json"
            )
        n_vocabulary = model.get_input_embeddings().weight.shape[0]
        how = [
            sampling_params(prompt, of, harness.ends(prompt), n_vocabulary)
            for prompt, of in zip(prompts, settings, strict=True)
        ]
        live = self._vllm(longest)
        written = live.write([prompt.tokens for prompt in prompts], how)
        return [harness.text(ids, prompt) for ids, prompt in zip(written, prompts, strict=True)]

    def _vllm(self, n_tokens: int) -> LiveVllm:
        """Give the live vLLM with the loaded model's weights, started where none fits."""
        harness = self._loaded.harness
        if self._live is None or not self._live.fits(harness.model, n_tokens):
            self._live = None  # there is room for one
            room = max(_LEAST_ROOM, 1 << (n_tokens - 1).bit_length())
            room = min(room, harness.max_length)
            self._live = LiveVllm(harness.model, self._tokenizer, room, self._batch_size)
        elif not self._taken:
            self._live.take(harness.model)
        self._taken = True
        return self._live


def _n_parameters(config: "PreTrainedConfig") -> int:
    """Count the parameters of a configuration's model."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return int(model.num_parameters())
