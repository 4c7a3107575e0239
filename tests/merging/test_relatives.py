"""Relatives that were saved otherwise than each other: one tied, or one with a value head."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mergesearch import Parents, merge, plan_merge, read_recipe
from mergesearch.errors import InputError, RecipeError
from mergesearch.merging import LiveModel
from mergesearch.recipe import Recipe
from tests import tiny

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 20, 31, 4]])
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


def linear(folder: Path, *names: str) -> Recipe:
    models = ", ".join(f"{{model: {name}}}" for name in names)
    text = f"{{merge_method: linear, parameters: {{weight: 1}}, models: [{models}]}}"
    return read_recipe(text).resolved(folder)


def scored_and_exported(recipe: Recipe, out: Path, **more: Any) -> dict[str, Tensor]:
    """Merge to disk and in memory, and hold the two beside each other."""
    live = LiveModel(Parents.of(recipe), CPU)
    assert live.become(recipe) == merge(recipe, out, **more)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        assert torch.equal(live.model(input_ids=IDS).logits, loaded(input_ids=IDS).logits)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("names", [("tied", "untied"), ("untied", "tied")], ids="-".join)
def test_a_tied_relative_lends_its_embeddings_to_a_head(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    tiny.llama(tmp_path / "tied", 1, tie_word_embeddings=True)
    tiny.llama(tmp_path / "untied", 2, tie_word_embeddings=False)
    merged = scored_and_exported(linear(tmp_path, *names), tmp_path / "out")
    tied, untied = (load_file(tmp_path / n / "model.safetensors") for n in ("tied", "untied"))
    assert HEAD not in tied
    assert torch.equal(merged[EMBEDDINGS], (tied[EMBEDDINGS] + untied[EMBEDDINGS]) / 2)
    assert torch.equal(merged[HEAD], (tied[EMBEDDINGS] + untied[HEAD]) / 2)
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    )


def test_tied_relatives_stay_tied_beside_an_untied_one_that_the_recipe_does_not_name(
    tmp_path: Path,
) -> None:
    for seed, name in enumerate(("one", "two")):
        tiny.llama(tmp_path / name, seed, tie_word_embeddings=True)
    tiny.llama(tmp_path / "untied", 2, tie_word_embeddings=False)
    recipe = linear(tmp_path, "one", "two")
    both = Parents([*recipe.models, *linear(tmp_path, "untied").models])
    assert HEAD not in plan_merge(recipe, both).shapes
    assert plan_merge(recipe, both).shapes == plan_merge(recipe, Parents.of(recipe)).shapes


@pytest.mark.parametrize("names", [("one", "ppo"), ("ppo", "one")], ids="-".join)
def test_a_value_head_of_one_relative_is_left_out_and_named(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    with_value_head(tmp_path)
    said: list[str] = []
    recipe = linear(tmp_path, *names)
    merged = scored_and_exported(recipe, tmp_path / "out", say=said.append)
    assert "v_head.summary.weight" not in merged
    assert any("v_head.summary" in line for line in said)


def test_a_value_head_of_all_relatives_is_merged_and_scores_nothing(tmp_path: Path) -> None:
    with_value_head(tmp_path)
    merged = scored_and_exported(linear(tmp_path, "ppo"), tmp_path / "out")
    assert merged["v_head.summary.weight"].shape == (1, 16)


def added(folder: Path, tensors: dict[str, Tensor], **config: Any) -> None:
    """Put tensors into a checkpoint's file."""
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path, {"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


@pytest.mark.parametrize("name", ["foo.bar", "model.layers.9.mlp.up_proj.weight"])
def test_a_tensor_of_one_relative_that_nothing_explains_is_an_error(
    tmp_path: Path, name: str
) -> None:
    for seed, folder in enumerate(("one", "two")):
        tiny.llama(tmp_path / folder, seed)
    added(tmp_path / "two", {name: torch.randn(24, 16)})
    for names in (("one", "two"), ("two", "one")):
        recipe = linear(tmp_path, *names)
        with pytest.raises(InputError, match=f"only .*two has {name} .*24, 16.*; remove it") as e:
            merge(recipe, tmp_path / "out")
        assert "\n" not in str(e.value)
        assert not (tmp_path / "out").exists()
        said: list[str] = []
        merge(recipe, tmp_path / "-".join(names), allow_mismatch=True, say=said.append)
        assert any(line.endswith(f"not load: {name}") for line in said)
        n = len(load_file(tmp_path / "one" / "model.safetensors"))
        counts = {"one": n, "two": n + 1}
        listed = ", ".join(f"{counts[model]} in {model}" for model in names)
        assert said[-1] == f"tensors: {listed}; {n} written, 1 not"
    added(tmp_path / "one", {name: torch.randn(24, 16)})
    merge(linear(tmp_path, "one", "two"), tmp_path / "both")
    assert name in load_file(tmp_path / "both" / "model.safetensors")


EXPLAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "a head of rewards": ("v_head.summary.weight", {}),
    "a further head": ("medusa_heads.0.linear.weight", {}),
    "another class": ("score.weight", {}),
    "a further token's layer": ("model.layers.4.eh_proj.weight", {"num_nextn_predict_layers": 1}),
    "an old table": ("model.layers.1.self_attn.maybe_rotary.cos_cached", {}),
    "a table": ("model.layers.1.self_attn.rotary_emb.inv_freq", {}),
}


@pytest.mark.parametrize(("name", "config"), EXPLAINED.values(), ids=EXPLAINED)
def test_a_tensor_of_one_relative_that_is_explained_is_left_out(
    tmp_path: Path, name: str, config: dict[str, Any]
) -> None:
    for seed, folder in enumerate(("one", "two")):
        tiny.llama(tmp_path / folder, seed)
        added(tmp_path / folder, {name: torch.randn(2, 16)} if seed else {}, **config)
    recipe = linear(tmp_path, "one", "two")
    assert plan_merge(recipe, Parents.of(recipe)).left_out == (name,)


def test_a_tensor_of_another_class_of_the_kind_is_left_out(tmp_path: Path) -> None:
    """As BERT is published with the head of a task that its class does not have."""
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = transformers.BertConfig(vocab_size=32, num_attention_heads=2, **sizes)
    for name in ("one", "two"):
        transformers.BertForMaskedLM(config).save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    names = ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "cls.seq_relationship.weight"]
    added(tmp_path / "two", {name: torch.randn(16) for name in names})
    recipe = linear(tmp_path, "one", "two")
    assert plan_merge(recipe, Parents.of(recipe)).left_out == tuple(names)


def test_a_tensor_of_the_class_that_one_relative_lacks_is_an_error(tmp_path: Path) -> None:
    tiny.llama(tmp_path / "one", 1)
    tiny.llama(tmp_path / "two", 2)
    path = tmp_path / "two" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})
    for names in (("one", "two"), ("two", "one")):
        recipe = linear(tmp_path, *names)
        with pytest.raises(RecipeError, match=r"two has no tensor model\.layers\.1\.mlp\.up_proj"):
            merge(recipe, tmp_path / "out")


def with_value_head(folder: Path) -> None:
    tiny.llama(folder / "one", 1)
    tiny.llama(folder / "ppo", 2)
    path = folder / "ppo" / "model.safetensors"
    more = {"v_head.summary.weight": torch.randn(1, 16), "v_head.summary.bias": torch.randn(1)}
    save_file({**load_file(path), **more}, path, {"format": "pt"})
