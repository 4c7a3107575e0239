"""Towers, depths and configurations: no tensor is lost, and what is written loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, T5Config, T5ForConditionalGeneration

from mergesearch import merge
from mergesearch.errors import InputError, RecipeError
from mergesearch.exporting import write_checkpoint
from mergesearch.merging import build, merge_into, plan_merge
from mergesearch.merging.layered import of_layers
from mergesearch.parents import Parents
from mergesearch.recipe import read_recipe
from tests import tiny
from tests.merging import recipes


def t5(folder: Path, seed: int, **changes: int) -> Path:
    """An encoder and a decoder."""
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 4, "num_heads": 4}
    T5ForConditionalGeneration(
        T5Config(vocab_size=32, decoder_start_token_id=3, **{**sizes, **changes})
    ).save_pretrained(folder)
    return folder


def test_a_decoder_deeper_than_its_encoder_is_merged_whole(tmp_path: Path) -> None:
    """And a gradient lies over the layers of each."""
    for seed, name in enumerate(("one", "two")):
        t5(tmp_path / name, seed, num_layers=2, num_decoder_layers=4)
    text = "merge_method: linear\nmodels:\n- {model: one, parameters: {weight: [1, 0]}}\n"
    text += "- {model: two, parameters: {weight: [0, 1]}}\n"
    recipe = read_recipe(text).resolved(tmp_path)
    merge(recipe, tmp_path / "out")
    one, two, merged = (
        load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "out")
    )
    assert merged.keys() == one.keys()
    assert plan_merge(recipe, Parents(recipe.models)).left_out == ()
    for tower, depth in (("encoder", 2), ("decoder", 4)):
        for layer in range(depth):
            name = f"{tower}.block.{layer}.layer.0.SelfAttention.q.weight"
            share = layer / (depth - 1)
            expected = (1 - share) * one[name] + share * two[name]
            assert torch.allclose(merged[name], expected, atol=1e-6)
    _, info = T5ForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())


def test_an_encoder_decoder_is_stacked_where_both_are_as_deep_and_else_refused(
    tmp_path: Path,
) -> None:
    for seed, name in enumerate(("u-one", "u-two")):
        t5(tmp_path / name, seed)
    merge(read_recipe(recipes.STACK.format(p="u-")).resolved(tmp_path), tmp_path / "out")
    model, info = T5ForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(info.values())
    assert (model.config.num_layers, model.config.num_decoder_layers) == (6, 6)
    for seed, name in enumerate(("v-one", "v-two")):
        t5(tmp_path / name, seed, num_decoder_layers=3)
    with pytest.raises(RecipeError, match=r"has 4 by that, and decoder\.block\.\* 3; merge whole"):
        merge(read_recipe(recipes.STACK.format(p="v-")).resolved(tmp_path), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_layers_that_the_configuration_does_not_count_are_merged_as_what_they_are(
    models: Path, tmp_path: Path
) -> None:
    """As those that predict further tokens are stored."""
    paths = []
    for i, name in enumerate(("u-one", "u-two")):
        shutil.copytree(models / name, tmp_path / name)
        path = tmp_path / name / "model.safetensors"
        extra = {"model.layers.4.eh_proj.weight": torch.full((2, 2), float(i))}
        save_file({**load_file(path), **extra}, path, {"format": "pt"})
        paths.append(path)
    text = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: u-one}, {model: u-two}]"
    recipe = read_recipe(text).resolved(tmp_path)
    merge(recipe, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == load_file(paths[0]).keys()
    assert (merged["model.layers.4.eh_proj.weight"] == 0.5).all()
    with pytest.raises(RecipeError, match=r"has 4 by that, and model\.layers\.\* 5"):
        merge(read_recipe(recipes.STACK.format(p="u-")).resolved(tmp_path), tmp_path / "none")


def test_layers_that_a_configuration_names_follow_the_stacking(tmp_path: Path) -> None:
    config = {
        "num_hidden_layers": 4,
        "max_window_layers": 4,
        "num_decoder_layers": 4,
        "first_k_dense_replace": 4,
        "no_rope_layers": [1, 0, 1, 1],
        "mlp_only_layers": [0, 3],
        "eos_token_id": [1, 2, 3, 4],
        "text_config": {"num_hidden_layers": 4, "layer_types": ["a", "b", "c", "d"]},
    }
    layers = [(config, 0), (config, 1), (config, 1), (config, 3), (config, 3)]
    assert of_layers(config, layers, 4) == {
        "num_hidden_layers": 5,
        "max_window_layers": 5,
        "num_decoder_layers": 5,
        "first_k_dense_replace": 4,
        "no_rope_layers": [1, 0, 0, 1, 1],
        "mlp_only_layers": [0, 3, 4],
        "eos_token_id": [1, 2, 3, 4],
        "text_config": {"num_hidden_layers": 5, "layer_types": ["a", "b", "b", "d", "d"]},
    }


def test_what_is_not_written_is_said(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "u-one", tmp_path / "one")
    path = tmp_path / "one" / "model.safetensors"
    tables = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in range(4)}
    save_file({**load_file(path), **tables}, path, {"format": "pt"})
    recipe = read_recipe("{merge_method: passthrough, models: [{model: one}]}").resolved(tmp_path)
    said: list[str] = []
    write_checkpoint(recipe, tmp_path / "out", say=said.append)
    assert plan_merge(recipe, Parents(recipe.models)).left_out == tuple(tables)
    line = next(line for line in said if "not written" in line)
    assert line.endswith(f"{', '.join([*tables][:3])} and 1 more, which the card names")
    n = len(load_file(path))
    assert said[-1] == f"tensors: {n} in one; {n - 4} written, 4 not"
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Tensors: {n} in one; {n - 4} written, 4 not." in card
    assert "\n".join(tables) in card


def test_a_stack_that_its_configuration_would_not_load_is_refused(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergesearch.merging.layered._COUNTS", ("nothing",))
    for name in ("u-one", "u-two"):
        shutil.copytree(models / name, tmp_path / name)
    recipe = read_recipe(recipes.STACK.format(p="u-")).resolved(tmp_path)
    with pytest.raises(
        InputError, match=r"a stack must have .* only the recipe has model\.layers\.4"
    ):
        merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("said", [True, None, False], ids=["said", "by the class", "untied"])
@pytest.mark.parametrize("own", [False, True], ids=["the embeddings", "its own"])
def test_a_stored_head_is_merged_as_transformers_loads_it(
    tmp_path: Path, own: bool, said: bool | None
) -> None:
    """Gemma ties by default, and trainers store the head all the same."""
    config = Gemma2Config(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=3,
    )  # fmt: skip
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        Gemma2ForCausalLM(config).save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
        path = tmp_path / name / "model.safetensors"
        tensors = load_file(path)
        embeddings = tensors["model.embed_tokens.weight"]
        head = torch.randn(embeddings.shape) if own else embeddings.clone()
        save_file({**tensors, "lm_head.weight": head}, path, {"format": "pt"})
        data = json.loads((tmp_path / name / "config.json").read_text())
        data.pop("tie_word_embeddings", None)
        data |= {} if said is None else {"tie_word_embeddings": said}
        (tmp_path / name / "config.json").write_text(json.dumps(data))
    text = "{merge_method: linear, parameters: {weight: 1}, models: [{model: one}, {model: two}]}"
    recipe = read_recipe(text).resolved(tmp_path)
    merge(recipe, tmp_path / "out")
    one, two, out = (
        Gemma2ForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "two", "out")
    )
    expected = (one.lm_head.weight + two.lm_head.weight) / 2
    assert torch.allclose(out.lm_head.weight, expected, atol=1e-6)
    tied = said is not False and not own
    assert (out.lm_head.weight is out.model.embed_tokens.weight) == tied
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert ("lm_head.weight" in stored) == (not tied)
    plan = plan_merge(recipe, Parents(recipe.models))
    live = build(plan, torch.device("cpu"))
    merge_into(live, recipe, Parents(recipe.models))
    assert torch.allclose(live.lm_head.weight, expected, atol=1e-6)  # and is scored so


def test_what_quantization_left_goes_from_all_parts_and_dtypes_are_the_recipes(
    models: Path, tmp_path: Path
) -> None:
    stale = {"quantization_config": {"quant_method": "gptq"}, "compression_config": {"bits": 4}}
    for name in ("one", "two"):
        shutil.copytree(models / f"u-{name}", tmp_path / name)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text())
        parts = {"text_config": {**stale, "torch_dtype": "float16"}, "vision_config": {**stale}}
        path.write_text(json.dumps(config | stale | parts | {"torch_dtype": "float16"}))
    text = "{merge_method: linear, parameters: {weight: 1}, models: [{model: one}, {model: two}]"
    for dtype, expected in (("", ("float32", "float16")), (", dtype: bfloat16", ("bfloat16",) * 2)):
        recipe = read_recipe(text + dtype + "}").resolved(tmp_path)
        said = plan_merge(recipe, Parents(recipe.models)).config
        assert not stale.keys() & said.keys()
        assert said["text_config"] == {"torch_dtype": expected[1]}
        assert said["vision_config"] == {}
        assert said["dtype"] == expected[0]
        assert ("torch_dtype" in said) == (not dtype)
