"""Vision-language models: the language model inside is merged, and its towers as is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mergesearch import Parents, merge, read_recipe, write_recipe
from mergesearch.errors import InputError
from mergesearch.merging import LiveModel, plan_merge
from tests import tiny

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 20, 31, 4]])
TEXT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
RECIPE = """
merge_method: linear
parameters: {weight: 1}
models: [{model: one}, {model: two}]
"""


def gemma3(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = transformers.Gemma3Config(
        text_config={**TEXT, "sliding_window": 16}, vision_config=VISION, mm_tokens_per_image=4,
        image_token_index=40, boi_token_index=41, eoi_token_index=42,
    )  # fmt: skip
    transformers.Gemma3ForConditionalGeneration(config).float().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


def llava(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_id=40,
    )
    transformers.LlavaForConditionalGeneration(config).float().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module", params=[gemma3, llava])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param.__name__)
    for seed, name in enumerate(("one", "two")):
        request.param(folder / name, seed)
    return folder


def is_language(name: str) -> bool:
    return "vision" not in name and "projector" not in name


@pytest.mark.parametrize("towers", [None, "merge", "base"])
def test_towers_are_merged_or_the_bases(pair: Path, tmp_path: Path, towers: str | None) -> None:
    recipe = read_recipe(RECIPE + (f"# mergesearch: {{towers: {towers}}}\n" if towers else ""))
    recipe = recipe.resolved(pair)
    merge(recipe, tmp_path / "out")
    one, two, out = (
        load_file(folder / "model.safetensors")
        for folder in (pair / "one", pair / "two", tmp_path / "out")
    )
    assert out.keys() == one.keys()
    assert {is_language(name) for name in one} == {True, False}
    for name, tensor in out.items():
        mean = towers != "base" or is_language(name)
        assert torch.equal(tensor, (one[name] + two[name]) / 2 if mean else one[name]), name


def test_the_language_models_configuration_follows_the_vocabulary(
    pair: Path, tmp_path: Path
) -> None:
    text = RECIPE + "tokenizer: {source: one, pad_to_multiple_of: 48}\n"
    merge(read_recipe(text).resolved(pair), tmp_path / "out")
    before, config = (
        json.loads((folder / "config.json").read_text())
        for folder in (pair / "one", tmp_path / "out")
    )
    assert config["text_config"]["vocab_size"] == 48
    assert ("vocab_size" in config) == ("vocab_size" in before)
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert loaded.get_input_embeddings().weight.shape[0] == 48


def test_text_is_scored_through_the_language_model(pair: Path, tmp_path: Path) -> None:
    recipe = read_recipe(RECIPE + "# mergesearch: {towers: base}\n").resolved(pair)
    live = LiveModel(Parents.of(recipe), CPU)
    assert live.become(recipe) == merge(recipe, tmp_path / "out")
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(live.model(input_ids=IDS).logits, loaded(input_ids=IDS).logits)


def test_towers_are_refused_where_they_should_not_be(pair: Path, tmp_path: Path) -> None:
    recipe = read_recipe(RECIPE + "# mergesearch: {towers: refuse}\n").resolved(pair)
    with pytest.raises(InputError, match=r"towers: refuse takes models without towers, and .*"):
        merge(recipe, tmp_path / "out")
    for name in ("one", "two"):
        tiny.llama(tmp_path / name, 1)
    without = read_recipe(RECIPE + "# mergesearch: {towers: refuse}\n").resolved(tmp_path)
    assert plan_merge(without, Parents.of(without)).jobs


def test_towers_are_said_in_a_comment_and_merging_them_is_the_default() -> None:
    recipe = read_recipe(RECIPE + "# mergesearch: {towers: base}\n")
    assert read_recipe(write_recipe(recipe)) == recipe
    assert "# mergesearch: {towers: base}" in write_recipe(recipe)
    assert read_recipe(RECIPE + "# mergesearch: {towers: merge}\n").hash == read_recipe(RECIPE).hash


def test_a_stack_moves_layers_of_the_language_model_alone(pair: Path, tmp_path: Path) -> None:
    """The towers are as deep as they were, in the weights and in config.json."""
    text = """
    merge_method: passthrough
    slices:
    - sources: [{model: one, layer_range: [0, 3]}]
    - sources: [{model: two, layer_range: [1, 3]}]
    """
    recipe = read_recipe(text).resolved(pair)
    live = LiveModel(Parents.of(recipe), CPU)
    assert live.become(recipe) == merge(recipe, tmp_path / "out")
    loaded, info = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    depths = loaded.config.text_config.num_hidden_layers, loaded.config.vision_config
    assert (depths[0], depths[1].num_hidden_layers) == (5, 2)
    with torch.no_grad():
        assert torch.equal(live.model(input_ids=IDS).logits, loaded(input_ids=IDS).logits)
