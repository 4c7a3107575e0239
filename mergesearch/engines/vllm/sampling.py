"""The settings that texts are written with, in vLLM's words."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from mergesearch.engines.torch.manner import REPLACED, settings_of
from mergesearch.errors import InputError

if TYPE_CHECKING:
    from vllm import SamplingParams

    from mergesearch.engines.torch.generation import Prompt

#: Settings that vLLM has, too, and means by them what transformers means.
_SHARED = frozenset({"eos_token_id", "max_new_tokens", "repetition_penalty", "suppress_tokens"})
_WITHOUT_EFFECT = """
bos_token_id cache_implementation decoder_start_token_id disable_compile early_stopping
epsilon_cutoff eta_cutoff length_penalty min_p pad_token_id remove_invalid_values
renormalize_logits return_dict_in_generate temperature top_h top_k top_p transformers_version
typical_p
"""
#: Settings that change no text where decoding is greedy, without beams.
_IDLE = frozenset(_WITHOUT_EFFECT.split())


def check_settings(generation: GenerationConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings of a task's texts, which transformers and vLLM must share.

    Sampled texts are refused as well: vLLM draws other numbers, so that they would be others.

    Args:
        generation: the model's own settings.
        options: of the task, which go first.

    Raises:
        InputError: vLLM has no such setting.
    """
    settings = settings_of(generation, options)
    # what is no setting transformers refuses, too
    unknown = options.keys() - vars(GenerationConfig()).keys()
    others = sorted((settings.keys() | unknown | options.keys() & REPLACED) - _SHARED - _IDLE)
    if others:
        raise InputError(
            "the engine vllm writes greedily, under settings that it shares with transformers, "
            f"which {', '.join(others)} of the task or generation_config.json "
            f"{'is' if len(others) == 1 else 'are'} not; leave it out or take engine: torch"
        )
    return settings


def sampling_params(
    prompt: "Prompt", settings: Mapping[str, Any], ends: Collection[int], n_vocabulary: int
) -> "SamplingParams":
    """Say in vLLM's words how a prompt is continued.

    Args:
        prompt: for what ends its text.
        settings: from `check_settings`.
        ends: ids of the special tokens that the task ends texts by.
        n_vocabulary: the tokens that the model can write.
    """
    from vllm import SamplingParams

    own = settings.get("eos_token_id", [])
    suppressed = set(settings.get("suppress_tokens", ()))
    return SamplingParams(
        temperature=0,
        max_tokens=n_new(prompt, settings),
        # the tokenizer's own end is none unless the model or the task says so
        ignore_eos=True,
        stop_token_ids=sorted({*ends, *([own] if isinstance(own, int) else own)}),
        stop=[end for end in prompt.until if end],
        include_stop_str_in_output=True,  # it is found, and cut off, as for every engine
        repetition_penalty=settings.get("repetition_penalty", 1.0),
        allowed_token_ids=[i for i in range(n_vocabulary) if i not in suppressed]
        if suppressed
        else None,
        logprobs=0,  # of what was written, by which NaN shows
    )


def n_new(prompt: "Prompt", settings: Mapping[str, Any]) -> int:
    """Count the tokens that are written at most; the model goes before the task."""
    return int(settings.get("max_new_tokens") or prompt.max_gen_toks)
