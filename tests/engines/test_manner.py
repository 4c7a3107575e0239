"""Batches under a model's own settings, of which not every one is right."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.engines.torch import batches as batching
from mergesearch.engines.torch.batches import generation_batches
from mergesearch.engines.torch.engine import TorchEngine
from mergesearch.engines.torch.hflm import Harness
from mergesearch.engines.torch.limits import Limits
from mergesearch.engines.torch.manner import Manner, manner_of
from mergesearch.engines.torch.probing import FastPaths, probe
from mergesearch.errors import InputError
from mergesearch.requests import Generation

PLAIN, EVEN, ALONE = Manner(8), Manner(8, even=True), Manner(8, even=True, alone=True)
PROMPTS = ["one two three", "one two a", "one two fox.", "one two b"]


@pytest.mark.parametrize(
    ("settings", "options", "manner"),
    [
        ({}, {"do_sample": False}, PLAIN),
        ({"eos_token_id": [0, 7], "do_sample": True, "top_k": 3, "temperature": 0.6}, {}, PLAIN),
        ({"repetition_penalty": 1.1, "suppress_tokens": [3]}, {}, PLAIN),
        ({"max_length": 20, "use_cache": False}, {}, PLAIN),  # lm-eval says both
        ({"num_beams": 1, "no_repeat_ngram_size": 0, "min_length": 0}, {}, PLAIN),
        ({"cache_implementation": "hybrid", "chat_format": "own"}, {}, PLAIN),
        ({"max_new_tokens": 3}, {}, replace(PLAIN, n_new=3)),
        ({"no_repeat_ngram_size": 1}, {}, EVEN),
        ({"min_length": 4}, {}, EVEN),
        ({}, {"bad_words_ids": [[3, 4]]}, EVEN),
        ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 0}, PLAIN),  # the task goes first
        ({"num_beams": 2}, {}, ALONE),
        ({"cache_implementation": "static"}, {}, ALONE),
        ({}, {"max_length": 20}, Manner(8, alone=True)),
        ({"prompt_lookup_num_tokens": 2}, {}, ALONE),
    ],
)
def test_the_manner_of_settings(
    settings: dict[str, Any], options: dict[str, Any], manner: Manner
) -> None:
    assert manner_of(GenerationConfig(**settings), options, 8) == manner


@pytest.mark.parametrize(
    ("settings", "sizes", "shares"),
    [
        ({"repetition_penalty": 1.1}, [4], True),
        ({"no_repeat_ngram_size": 2}, [1, 1, 2], True),
        ({"num_beams": 2}, [1, 1, 1, 1], False),
    ],
)
def test_batches_are_as_large_as_settings_allow(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    sizes: list[int],
    shares: bool,
) -> None:
    monkeypatch.setattr(batching, "LEAST_SAVING", 1)
    model.generation_config = GenerationConfig(**settings)
    requests = [Generation(prompt, {"max_gen_toks": 4}) for prompt in PROMPTS]
    limits = Limits.of(model.config, model.dtype, "cpu", None)
    harness = Harness(model, tokenizer, 4)
    batches = generation_batches(requests, harness, FastPaths(True, True), limits)
    assert [len(batch.owners) for batch in batches] == sizes
    assert all(bool(batch.parts) == shares for batch in batches)


def test_a_special_stop_token_ends_a_text_whatever_is_beside_it(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Row by row it is written at another place, and the model itself does not stop at it."""
    model = make_model()
    model.generation_config = GenerationConfig(eos_token_id=None)
    forward, end = model.forward, tokenizer.eos_token_id

    @wraps(forward)
    def ends(*args: Any, **given: Any) -> Any:
        output = forward(*args, **given)
        for row, positions in enumerate(given["position_ids"][:, -1:].tolist()):
            output.logits[row, -1, end] = 1e4 if positions[0] % 5 == 0 else -1e4
        return output

    model.forward = ends
    engine = TorchEngine(tokenizer)
    engine._paths[model] = FastPaths(packs=False, shares=False)
    requests = [Generation(prompt, {"max_gen_toks": 12}) for prompt in PROMPTS]
    engine.load(model)
    together = engine.answer(requests)
    assert together == [engine.answer([request])[0] for request in requests]
    assert len({len(str(text)) for text in together}) > 1


def test_models_of_other_settings_get_other_batches_from_one_engine(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    engine, model = TorchEngine(tokenizer), make_model()
    requests = [Generation(prompt, {"max_gen_toks": 4}) for prompt in PROMPTS]
    texts, silent = {}, [0, 1, 2, *range(78, 90)]  # of no character
    for n in (2, 9):
        model.generation_config = GenerationConfig(max_new_tokens=n, suppress_tokens=silent)
        engine.load(model)
        texts[n] = [str(text) for text in engine.answer(requests)]
    assert {len(text) for text in texts[9]} == {9}
    assert texts[2] == [text[:2] for text in texts[9]]


def test_a_dict_of_results_is_one_of_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine, requests = TorchEngine(tokenizer), [Generation("a", {"max_gen_toks": 4})]
    engine.load(model)
    expected = engine.answer(requests)
    model.generation_config.return_dict_in_generate = True
    assert engine.answer(requests) == expected


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stop_strings": ["x"]}, "tokenizer"),
        (
            {"cache_implementation": "quantized", "cache_config": {"backend": "quanto"}},
            "optimum-quanto",
        ),
    ],
)
def test_settings_that_transformers_refuses_are_one_line(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    settings: dict[str, Any],
    reason: str,
) -> None:
    model.generation_config = GenerationConfig(**settings)
    engine = TorchEngine(tokenizer)
    engine.load(model)
    with pytest.raises(InputError, match=rf"_config.json ask \(.*{reason}.*change") as e:
        engine.answer([Generation("a", {"max_gen_toks": 4})])
    assert "\n" not in str(e.value)


def test_the_paths_of_a_module_do_not_depend_on_its_settings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    own = model.generation_config = GenerationConfig(stop_strings=["x"], num_beams=3)
    assert probe(Harness(model, tokenizer, 4)) == FastPaths(packs=True, shares=True)
    assert model.generation_config is own
    assert torch.is_grad_enabled()
