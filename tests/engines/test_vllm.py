"""The engine on vLLM: what it refuses anywhere, and its texts where vLLM is."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from mergesearch.engines import engine_of
from mergesearch.engines.vllm import engine as module
from mergesearch.engines.vllm import live
from mergesearch.engines.vllm.engine import VllmEngine
from mergesearch.engines.vllm.sampling import check_settings
from mergesearch.engines.vllm.weights import checkpoint_tensors
from mergesearch.errors import CandidateError, InputError
from mergesearch.requests import Generation, LogLikelihood, Request, RollingLogLikelihood
from mergesearch.runtime import Runtime
from tests import tiny

needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="needs vLLM, with which `make test-vllm` runs the tests"
)
#: The least that vLLM's attention on a CPU computes with.
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
WORDS = tiny.WORDS


def loaded(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[PreTrainedModel]:
    """Three of one configuration."""
    folder = tmp_path_factory.mktemp("models")
    return [loaded(tiny.llama(folder / str(seed), seed, **SIZES)) for seed in range(3)]


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    """One for all tests that may share a live vLLM."""
    made = engine_of(tiny.tokenizer(), Runtime(engine="vllm"))
    assert isinstance(made, VllmEngine)
    yield made


def prompts(n: int, **options: Any) -> list[Request]:
    texts = [" ".join(WORDS[(i * 7 + j * j) % 28] for j in range(3 + i % 5)) for i in range(n)]
    return [Generation(text, {"max_gen_toks": 12, **options}) for text in texts]


def by_torch(model: PreTrainedModel, requests: list[Request]) -> list[Any]:
    engine = engine_of(tiny.tokenizer())
    engine.load(model)
    return engine.answer(requests)


def by_vllm(engine: VllmEngine, model: PreTrainedModel, requests: list[Request]) -> list[Any]:
    engine.load(model)
    try:
        return engine.answer(requests)
    finally:
        engine.unload()


def test_without_vllm_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install mergesearch\[vllm\], or take engine: torch"):
        engine_of(tiny.tokenizer(), Runtime(engine="vllm"))


@pytest.mark.parametrize(
    ("own", "options", "named"),
    [
        ({"num_beams": 2}, {}, "num_beams"),
        ({"no_repeat_ngram_size": 3}, {}, "no_repeat_ngram_size"),
        ({}, {"do_sample": True, "temperature": 0.7}, "do_sample"),
        ({}, {"max_length": 9}, "max_length"),
        ({"min_new_tokens": 2}, {"tempreature": 1}, "min_new_tokens, tempreature"),
    ],
)
def test_settings_that_vllm_does_not_share_are_refused(
    own: dict[str, Any], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=f"which {named} of the task or"):
        check_settings(GenerationConfig(**own), options)


def test_settings_that_greedy_decoding_does_not_look_at_are_passed_over() -> None:
    own = GenerationConfig(do_sample=True, top_p=0.9, temperature=0.6, eos_token_id=[2, 7])
    settings = check_settings(own, {"do_sample": False, "temperature": 0.0})
    assert settings["eos_token_id"] == [2, 7]


@pytest.mark.parametrize("kind", ["tied", "untied", "mixture"])
def test_weights_are_named_as_in_a_checkpoint(tmp_path: Path, kind: str) -> None:
    if kind == "mixture":
        config = MixtralConfig(
            **SIZES, vocab_size=32, intermediate_size=24, num_hidden_layers=2, num_local_experts=4
        )
        model: Any = MixtralForCausalLM(config)
        model.save_pretrained(tmp_path)
    else:
        model = loaded(tiny.llama(tmp_path, 0, tie_word_embeddings=kind == "tied"))
    stored = load_file(tmp_path / "model.safetensors")
    tensors = dict(checkpoint_tensors(model))
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) for name in stored)


@needs_vllm
def test_candidate_after_candidate_is_answered_as_by_torch(
    engine: VllmEngine, models: list[PreTrainedModel]
) -> None:
    requests = [*prompts(40, until=["w3 w", "w7"]), LogLikelihood("w1", " w3")]
    requests.append(RollingLogLikelihood("w1 w2 w3"))
    threads = torch.get_num_threads()
    for i in (0, 1, 2, 0):
        assert by_vllm(engine, models[i], requests) == by_torch(models[i], requests)
    assert len(set(by_vllm(engine, models[0], requests[:40]))) > 5
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


@needs_vllm
def test_weights_that_change_in_place_are_taken_and_vllm_is_not_started_again(
    engine: VllmEngine, models: list[PreTrainedModel]
) -> None:
    requests, model = prompts(12), models[0]
    first = by_vllm(engine, model, requests)
    own_vllm = engine._live
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in models[1].state_dict().items():
        model.state_dict()[name].copy_(tensor)
    assert by_vllm(engine, model, requests) == by_torch(models[1], requests) != first
    for name, tensor in own.items():
        model.state_dict()[name].copy_(tensor)
    assert by_vllm(engine, model, requests) == first
    assert engine._live is own_vllm


@needs_vllm
@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": [2, *range(10, 16)]},
        {"eos_token_id": None, "max_new_tokens": 5},
        {"repetition_penalty": 1.7},
        {"suppress_tokens": list(range(4, 20))},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_texts_under_a_models_settings_are_those_of_torch(
    engine: VllmEngine, models: list[PreTrainedModel], settings: dict[str, Any]
) -> None:
    model, own = models[1], models[1].generation_config
    plain = by_torch(model, prompts(20))
    try:
        model.generation_config = GenerationConfig(**settings)
        texts = by_vllm(engine, model, prompts(20))
        assert texts == by_torch(model, prompts(20))
        assert texts != plain
    finally:
        model.generation_config = own


@needs_vllm
def test_a_model_of_another_configuration_starts_vllm_again(
    engine: VllmEngine, tmp_path: Path
) -> None:
    model = loaded(tiny.llama(tmp_path, 0, tie_word_embeddings=False, **SIZES))
    assert by_vllm(engine, model, prompts(20)) == by_torch(model, prompts(20))


@needs_vllm
def test_a_model_that_vllm_computes_otherwise_is_refused(
    models: list[PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def others(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, 1.1 * tensor) for name, tensor in checkpoint_tensors(model))

    monkeypatch.setattr(live, "checkpoint_tensors", others)
    engine = engine_of(tiny.tokenizer(), Runtime(engine="vllm"))
    engine.load(models[0])
    with pytest.raises(InputError, match=r"other tokens of LlamaForCausalLM .* differ by .*torch$"):
        engine.answer(prompts(2))


@needs_vllm
def test_longer_prompts_start_vllm_again(
    engine: VllmEngine, models: list[PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST_ROOM", 16)
    engine._live = None
    short = prompts(2)
    long: list[Request] = [Generation(" ".join(WORDS * 2), {"max_gen_toks": 4})]
    for requests in (short, long, short):
        assert by_vllm(engine, models[0], requests) == by_torch(models[0], requests)
    assert engine._live is not None
    assert engine._live.fits(models[0], 64)
    assert not engine._live.fits(models[0], 65)


@needs_vllm
def test_a_model_that_writes_nan_is_no_candidate(
    engine: VllmEngine, models: list[PreTrainedModel]
) -> None:
    by_vllm(engine, models[2], prompts(2))
    norm = models[2].get_submodule("model.norm").weight
    kept = norm.clone()
    norm.fill_(torch.nan)
    try:
        with pytest.raises(CandidateError, match="logits are not finite"):
            by_vllm(engine, models[2], prompts(2))
    finally:
        norm.copy_(kept)


class Unknown(LlamaForCausalLM):
    """An architecture of nobody's."""


@needs_vllm
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (LlamaForCausalLM, r"^vLLM cannot run .*head_dim=4.*; take engine: torch$"),
        (Unknown, "^vLLM knows no language model of class Unknown; take engine: torch$"),
    ],
)
def test_what_vllm_cannot_run_is_one_line(
    tmp_path: Path, make: Callable[..., PreTrainedModel], says: str
) -> None:
    config = loaded(tiny.llama(tmp_path, 0)).config
    model = make(config).eval()
    own = engine_of(tiny.tokenizer(), Runtime(engine="vllm"))
    own.load(model)
    with pytest.raises(InputError, match=says) as caught:
        own.answer(prompts(2))
    assert "\n" not in str(caught.value)
    assert own.answer([LogLikelihood("w1", " w2")])


@needs_vllm
def test_a_search_is_scored_by_vllm(family: Path) -> None:
    from mergesearch.api import search
    from mergesearch.space import SearchSpace

    for seed, name in enumerate(("base", "one", "two")):
        tiny.llama(family / "models" / name, seed, **SIZES)
    documents = [{"text": f"{WORDS[i]} {WORDS[-i]}", "answer": WORDS[i]} for i in range(8)]
    tiny.write_task(
        family / "tasks",
        "texts",
        documents,
        output_type="generate_until",
        doc_to_choice=None,
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["w9"], "max_gen_toks": 4},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    suite = family / "suite.yaml"
    suite.write_text(
        "include_path: tasks\nsearch:\n  - {task: texts, metric: exact_match}\n"
        "  - {task: first, metric: acc}\n"
    )
    space = SearchSpace.load(family / "space.yaml")
    ends = {}
    for name in ("torch", "vllm"):
        best = search(space, family / name, device="cpu", engine=name).best
        ends[name] = (best.recipe, best.scores.total)
    assert ends["vllm"] == ends["torch"]
