"""The batches that a model's generation configuration allows.

A text must be the one that its prompt gives alone. Most settings look at what a row has written;
some look at its prompt as well, padding included; and of others no batch is right, such as beams,
beside which lm-eval's stop strings look at the first of several prompts only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

_ROW = """
bos_token_id decoder_start_token_id disable_compile do_sample early_stopping eos_token_id
epsilon_cutoff eta_cutoff exponential_decay_length_penalty forced_eos_token_id length_penalty
max_new_tokens min_new_tokens min_p pad_token_id remove_invalid_values renormalize_logits
repetition_penalty suppress_tokens temperature top_h top_k top_p transformers_version typical_p
"""
#: Settings that hold for rows of any length beside each other, behind a prefix that ran before.
_OF_A_ROW = frozenset(_ROW.split())
_PROMPT = """
bad_words_ids begin_suppress_tokens encoder_no_repeat_ngram_size encoder_repetition_penalty
forced_bos_token_id min_length no_repeat_ngram_size sequence_bias
"""
#: Settings that hold for rows beside each other whose prompts are of one length.
_OF_A_PROMPT = frozenset(_PROMPT.split())
#: Settings of a model that lm-eval's own arguments replace.
REPLACED = frozenset({"max_length", "use_cache"})
#: What Gemma's files say of the cache, and transformers takes for its default.
_DEFAULT_CACHE = {"cache_implementation": "hybrid"}


@dataclass(frozen=True)
class Manner:
    """The way in which the prompts of one kind are batched."""

    #: Tokens that are written at most.
    n_new: int
    #: The prompts of a batch are of one length.
    even: bool = False
    #: A batch is one prompt, and transformers makes its own cache.
    alone: bool = False


def manner_of(
    generation: GenerationConfig, options: Mapping[str, Any], max_gen_toks: int
) -> Manner:
    """Find the manner of prompts.

    Args:
        generation: the model's own settings.
        options: of the task, which go first.
        max_gen_toks: of the task; the model's `max_new_tokens` goes before it.
    """
    settings = settings_of(generation, options)
    asked = settings.keys()
    return Manner(
        n_new=settings.get("max_new_tokens") or max_gen_toks,
        even=bool(asked - _OF_A_ROW),
        # a length of the prompt and the text together is one of a padded prompt otherwise
        alone=bool(asked - _OF_A_ROW - _OF_A_PROMPT or REPLACED & options.keys()),
    )


def settings_of(generation: GenerationConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """Gather the settings of prompts that are other than transformers' own.

    Args:
        generation: the model's own settings.
        options: of the task, which go first; those that are no settings are left out.
    """
    known = vars(GenerationConfig()).keys()
    neutral = {**generation._get_default_generation_params(), **_DEFAULT_CACHE}
    own = {name: getattr(generation, name, None) for name in known - REPLACED}
    return {
        name: value
        for name, value in {**own, **options}.items()
        if name in known and name[0] != "_" and value is not None and value is not False
        if value != neutral.get(name)
    }
