"""A vLLM in this process whose weights are replaced in place, model after model."""

import math
import os
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mergesearch.engines.torch.limits import Limits
from mergesearch.engines.torch.probing import TOLERANCE
from mergesearch.engines.vllm.weights import checkpoint_tensors
from mergesearch.errors import CandidateError, InputError, MergesearchError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from vllm import LLM, SamplingParams

#: vLLM's own settings, where the user has no others: its lines would bury ours, and on a CPU it
#: would bind the threads of this process, which merge as well.
_SETTINGS = {"VLLM_LOGGING_LEVEL": "CRITICAL", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}

#: Share of a GPU's free memory that goes to keys and values; the torch engine's batches need some.
_CACHE_SHARE = 0.5

#: Rows of a forward pass on a GPU; what does not fit into its keys and values waits.
_ROWS_ON_GPU = 256

#: Tokens of each prompt by which vLLM's copy of a model is compared with the model.
_PROBED = (3, 7, 12)


class LiveVllm:
    """A vLLM for models of one configuration, on the device of the first.

    It shares this process, so that weights go from one module to the other without a copy between
    them, and is shut down with the last reference to it.

    Args:
        model: the first; its configuration is all that vLLM is started with.
        tokenizer: by which vLLM finds the strings that end texts.
        n_tokens: the longest prompt with its text.
        batch_size: rows of a forward pass; None lets their tokens decide.

    Raises:
        CandidateError: the model's logits are not finite.
        InputError: vLLM cannot run such a model, or not on its device.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        n_tokens: int,
        batch_size: int | None,
    ) -> None:
        self._key = _key(model)
        self._n_tokens = n_tokens
        check_model(model)
        with _one_line(model), tempfile.TemporaryDirectory(prefix="mergesearch-vllm-") as folder:
            config = model.config.__class__.from_dict(model.config.to_dict())
            config.architectures = [type(model).__name__]
            config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            #: vLLM itself, with the weights that were taken last.
            self.llm = _start(folder, model, n_tokens, batch_size)
        weakref.finalize(self, _shut_down, self.llm)
        self.take(model)
        self._compare(model)

    def fits(self, model: "PreTrainedModel", n_tokens: int) -> bool:
        """Tell if it can become a model, and hold prompts with texts of so many tokens."""
        return n_tokens <= self._n_tokens and _key(model) == self._key

    def take(self, model: "PreTrainedModel") -> None:
        """Copy a model's weights over those of the model before.

        Raises:
            InputError: vLLM does not take them.
        """
        with _one_line(model), torch.no_grad():
            weights = {"weights_iterator": checkpoint_tensors(model), "is_checkpoint_format": True}
            self.llm.collective_rpc("reload_weights", kwargs=weights)
            self.llm.apply_model(_prepare_output_layer)
            self.llm.reset_prefix_cache()

    def write(
        self, prompts: Sequence[Sequence[int]], how: Sequence["SamplingParams"]
    ) -> list[list[int]]:
        """Continue prompts, each in its own way, and give the ids, the end's included.

        Raises:
            CandidateError: the model's logits are not finite.
            InputError: vLLM fails.
        """
        with _one_line():
            asked: Any = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
            answers = [
                answer.outputs[0] for answer in self.llm.generate(asked, list(how), use_tqdm=False)
            ]
        if not all(math.isfinite(answer.cumulative_logprob or 0) for answer in answers):
            raise CandidateError("the model's logits are not finite")
        return [list(answer.token_ids) for answer in answers]

    def _compare(self, model: "PreTrainedModel") -> None:
        """Compare its next tokens with the model's: it may read a configuration otherwise."""
        from vllm import SamplingParams

        draw = torch.Generator().manual_seed(0)
        n_vocabulary = model.get_input_embeddings().weight.shape[0]
        prompts = [
            torch.randint(n_vocabulary, (n,), generator=draw) for n in _PROBED if n < self._n_tokens
        ]
        greedy = SamplingParams(temperature=0, max_tokens=1, logprobs=0, ignore_eos=True)
        with _one_line(model):
            asked: Any = [{"prompt_token_ids": prompt.tolist()} for prompt in prompts]
            answers = self.llm.generate(asked, greedy, use_tqdm=False)
        apart = 0.0
        for prompt, answer in zip(prompts, answers, strict=True):
            with torch.no_grad():
                logits = model(prompt[None].to(model.device)).logits[0, -1].float()
            if bool((logits.isnan() | logits.isposinf()).any()):
                raise CandidateError("the model's logits are not finite")
            (token,) = answer.outputs[0].token_ids
            expected = float(logits.log_softmax(-1)[token])
            apart = max(apart, abs(expected - (answer.outputs[0].cumulative_logprob or 0.0)))
        if not apart <= 10 * TOLERANCE[model.dtype]:
            raise InputError(
                f"vLLM computes other tokens of {type(model).__name__} than transformers: "
                f"log-probabilities differ by {apart:.2g}; take engine: torch"
            )


def check_model(model: "PreTrainedModel") -> None:
    """Check that vLLM runs models of a class, where they are.

    Raises:
        InputError: it does not, or its build is of another device.
    """
    name, places = type(model).__name__, {str(p.device) for p in model.parameters()}
    if len(places) > 1 or not places <= {"cpu", "cuda:0"}:
        raise InputError(
            "the engine vllm runs a model on the CPU or the first GPU that the process sees, but "
            f"it is on {', '.join(sorted(places))}; set CUDA_VISIBLE_DEVICES or take engine: torch"
        )
    with _one_line(model):
        _import()
        from vllm import ModelRegistry
        from vllm.platforms import current_platform

        known = name in ModelRegistry.get_supported_archs()
        built_for = current_platform.device_type
    if not known or model.config.get_text_config() is not model.config:
        raise InputError(f"vLLM knows no language model of class {name}; take engine: torch")
    if built_for != model.device.type:
        raise InputError(
            f"this build of vLLM is for {built_for or 'no device here'}, but the model is on "
            f"{model.device.type}; install another build, or take engine: torch"
        )


def _start(folder: str, model: "PreTrainedModel", n_tokens: int, batch_size: int | None) -> "LLM":
    from vllm import LLM

    limits = Limits.of(model.config, model.dtype, model.device.type, batch_size)
    n_rows, on_cpu = limits.prompts(n_tokens), model.device.type == "cpu"
    n_bytes = 2 * n_rows * n_tokens * limits.cache_bytes  # blocks are not filled to their ends
    if not on_cpu:
        free, _ = torch.cuda.mem_get_info()
        weights = sum(p.numel() * p.itemsize for p in model.parameters())
        n_bytes, n_rows = int(_CACHE_SHARE * (free - weights)), batch_size or _ROWS_ON_GPU
    set_threads = torch.set_num_threads
    try:
        return LLM(
            model=folder,
            load_format="dummy",  # weights come from memory
            generation_config="vllm",  # settings come with each prompt
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=n_tokens,
            max_num_seqs=n_rows,
            kv_cache_memory_bytes=max(n_bytes, 1 << 26),
            gpu_memory_utilization=0.01,  # what must be free at least; the line above decides
            enforce_eager=on_cpu,
        )
    except Exception:
        _clean_up()
        raise
    finally:
        torch.set_num_threads = set_threads  # on a CPU vLLM replaces it by one that does nothing


def _import() -> None:
    """Import vLLM, whose settings are in the environment."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are handed over in this process
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vllm  # noqa: F401


def _key(model: "PreTrainedModel") -> tuple[str, str, str, str]:
    """Tell by what models vLLM must be started anew."""
    config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
    return type(model).__name__, repr(config), str(model.dtype), str(model.device)


def _prepare_output_layer(model: nn.Module) -> None:
    """Have vLLM prepare its output layer's weights again.

    A CPU computes with a copy in another layout. `reload_weights` makes that anew where it loads a
    weight, which it does not for an output layer that is tied to the embeddings.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for layer in model.modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)


def _shut_down(llm: "LLM") -> None:
    llm.llm_engine.engine_core.shutdown()
    _clean_up()


def _clean_up() -> None:
    """Free what vLLM keeps in globals: process groups and cached memory."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


@contextmanager
def _one_line(model: "PreTrainedModel | None" = None) -> Iterator[None]:
    """Say in one line what vLLM raises, of whatever kind it is."""
    try:
        yield
    except MergesearchError:
        raise
    except Exception as error:
        name = type(model).__name__ if model is not None else "the model"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"vLLM cannot run {name} ({reason}); take engine: torch") from error
