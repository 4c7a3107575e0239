"""Texts of a live candidate beside those of lm-eval's `hf` on its exported checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergesearch.engines.torch import batches as batching
from mergesearch.engines.torch.engine import TorchEngine
from mergesearch.errors import MergesearchError
from mergesearch.exporting import write_checkpoint
from mergesearch.merging import LiveModel
from mergesearch.parents import Parents, tokenizer_of
from mergesearch.recipe import Recipe, read_recipe
from mergesearch.requests import Generation
from tests import tiny

CPU = torch.device("cpu")
Draw = np.random.Generator


def ids(draw: Draw, most: int = 3) -> list[int]:
    return draw.integers(4, 32, size=draw.integers(1, most + 1)).tolist()


#: Values of each setting, most of which a released model has.
SETTINGS = {
    "eos_token_id": lambda d: [2, None, [2, *ids(d, 8)], ids(d, 8)][d.integers(4)],
    "repetition_penalty": lambda d: float(d.uniform(0.5, 2.5)),
    "no_repeat_ngram_size": lambda d: int(d.integers(1, 4)),
    "do_sample": lambda _: True,
    "temperature": lambda d: float(d.uniform(0.1, 2)),
    "top_k": lambda d: int(d.integers(1, 9)),
    "top_p": lambda d: float(d.uniform(0.1, 1)),
    "min_p": lambda d: float(d.uniform(0, 0.5)),
    "typical_p": lambda d: float(d.uniform(0.1, 1)),
    "forced_bos_token_id": lambda d: ids(d)[0],
    "forced_eos_token_id": lambda d: [ids(d)[0], [2, *ids(d)]][d.integers(2)],
    "suppress_tokens": lambda d: ids(d, 9),
    "begin_suppress_tokens": lambda d: ids(d, 9),
    "bad_words_ids": lambda d: [ids(d) for _ in range(5)],
    "sequence_bias": lambda d: [[ids(d), float(d.normal(scale=5))] for _ in range(5)],
    "min_new_tokens": lambda d: int(d.integers(1, 12)),
    "min_length": lambda d: int(d.integers(1, 20)),
    "max_length": lambda d: int(d.integers(1, 40)),
    "max_new_tokens": lambda d: int(d.integers(1, 14)),
    "encoder_repetition_penalty": lambda d: float(d.uniform(0.5, 2.5)),
    "encoder_no_repeat_ngram_size": lambda d: int(d.integers(1, 4)),
    "exponential_decay_length_penalty": lambda d: [int(d.integers(1, 6)), d.uniform(1, 3)],
    "num_beams": lambda d: int(d.integers(2, 4)),
    "length_penalty": lambda d: float(d.uniform(0, 2)),
    "early_stopping": lambda _: True,
    "renormalize_logits": lambda _: True,
    "guidance_scale": lambda d: float(d.uniform(1, 3)),
    "cache_implementation": lambda d: ["hybrid", "dynamic", "static"][d.integers(3)],
    "use_cache": lambda _: False,
    "prompt_lookup_num_tokens": lambda d: int(d.integers(1, 4)),
    "watermarking_config": lambda d: {"greenlist_ratio": 0.5, "bias": float(d.uniform(0, 9))},
    "return_dict_in_generate": lambda _: False,
    "chat_format": lambda _: "a key of its own",
}


def drawn(draw: Draw, most: int) -> dict[str, Any]:
    names = draw.choice(sorted(SETTINGS), size=draw.integers(1, most + 1), replace=False)
    return {str(name): SETTINGS[name](draw) for name in names}


def options(draw: Draw) -> dict[str, Any]:
    """What a task says: lm-eval's own arguments, and now and then one of transformers'."""
    own: dict[str, Any] = {"until": ["w5", "<s>"][: draw.integers(0, 3)], "max_gen_toks": 8}
    if draw.random() < 0.5:
        own["do_sample"] = False
    if draw.random() < 0.3:
        own |= {"repetition_penalty": 1.2, "temperature": 0.0}
    return own


def requests(draw: Draw) -> list[Generation]:
    """Prompts that begin alike and differ in length, so that they share rows and prefixes."""
    own, begin = options(draw), [f"w{i}" for i in draw.integers(28, size=3)]
    ends = [[f"w{i}" for i in draw.integers(28, size=n)] for n in (0, 1, 1, 2, 4, 7, 7)]
    prompts = [" ".join([*begin, *end]) for end in ends] + ["w1", "w2 w3"]
    return [Generation(prompt, own) for prompt in prompts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generation")
    base = tiny.llama(folder / "one", 0, initializer_range=0.5)
    tiny.llama(folder / "two", 1, base=base, initializer_range=0.5)
    return folder


def recipe(folder: Path, first: str = "one", second: str = "two") -> Recipe:
    models = ", ".join(f"{{model: {folder / name}}}" for name in (first, second))
    return read_recipe(f"{{merge_method: linear, parameters: {{weight: 1}}, models: [{models}]}}")


def say(model: Path, settings: dict[str, Any], *, legacy: bool = False) -> None:
    """Write settings as a released model has them, or as an old one within its `config.json`."""
    config = json.loads((model / "config.json").read_text())
    own = {"eos_token_id": 2, "pad_token_id": 3, "bos_token_id": 1, **settings}
    (model / "generation_config.json").unlink(missing_ok=True)
    config = {key: value for key, value in config.items() if key not in SETTINGS}
    (model / "config.json").write_text(
        json.dumps(config | (own if legacy else {"eos_token_id": 2}))
    )
    if not legacy:
        (model / "generation_config.json").write_text(json.dumps(own))


def by_lm_eval(checkpoint: Path, asked: list[Generation]) -> list[str]:
    harness = HFLM(pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=1)
    instances = [
        Instance("generate_until", {}, (one.prompt, dict(one.options)), i, ("t", i, 1))
        for i, one in enumerate(asked)
    ]
    return harness.generate_until(instances, disable_tqdm=True)


def by_us(merge: Recipe, asked: list[Generation], dtype: torch.dtype = torch.float32) -> list[str]:
    parents = Parents.of(merge)
    live = LiveModel(parents, CPU, dtype)
    live.become(merge)
    engine = TorchEngine(tokenizer_of(parents))
    engine.load(live.model)
    return [str(text) for text in engine.answer(asked)]


@pytest.mark.parametrize("seed", range(24))
def test_texts_under_random_settings_are_lm_evals(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(batching, "LEAST_SAVING", 1)
    draw = np.random.default_rng(seed)
    say(folder / "one", drawn(draw, 1 + seed % 5), legacy=seed % 6 == 5)
    asked = requests(draw)
    write_checkpoint(recipe(folder), tmp_path / "out")
    try:
        expected = by_lm_eval(tmp_path / "out", asked)
    except (ValueError, TypeError, RuntimeError) as error:  # settings that do not go together
        with pytest.raises(MergesearchError, match="cannot generate as the task"):
            by_us(recipe(folder), asked)
        pytest.skip(f"lm-eval cannot either: {error}")
    assert by_us(recipe(folder), asked) == expected
