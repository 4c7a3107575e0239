"""Layers that no configuration counts, or that are counted apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mergesearch import evaluate, merge
from mergesearch.errors import InputError, RecipeError
from mergesearch.merging import n_layers, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import read_recipe
from mergesearch.tasks import load_suite
from tests import tiny

LINEAR = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: one}, {model: two}]\n"
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
NEXT_LAYERS = "num_nextn_predict_layers"
#: Beside a layer of its own kind, what a layer has that predicts a further token.
FURTHER = {
    "eh_proj": (16, 32),
    "enorm": (16,),
    "hnorm": (16,),
    "shared_head.norm": (16,),
    "embed_tokens": None,
    "shared_head.head": None,
}


def glm(folder: Path, seed: int, *, n_rows: int = 32, further: bool = True) -> Path:
    """A mixture whose file has a layer beyond its depth, which predicts a further token."""
    config = transformers.Glm4MoeConfig(
        **SIZES, vocab_size=n_rows, num_key_value_heads=2, head_dim=8, n_routed_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=8, first_k_dense_replace=1, n_group=1,
        topk_group=1, n_shared_experts=1, num_nextn_predict_layers=1,
    )  # fmt: skip
    torch.manual_seed(seed)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = [*tiny.WORDS, *(f"x{i}" for i in range(n_rows - 32))]
    tiny.tokenizer(words).save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if further:
        last = {n: t for n, t in tensors.items() if n.startswith("model.layers.1.")}
        more = {n.replace("layers.1.", "layers.2."): torch.randn_like(t) for n, t in last.items()}
        for name, shape in FURTHER.items():
            shape = shape or (n_rows, 16)
            more[f"model.layers.2.{name}.weight"] = torch.randn(shape)
        save_file({**tensors, **more}, path, {"format": "pt"})
    config_file = folder / "config.json"
    said = json.loads(config_file.read_text()) | {"num_nextn_predict_layers": 1}
    config_file.write_text(json.dumps(said))
    return folder


def test_layers_that_predict_further_tokens_are_merged_and_not_in_the_way(tmp_path: Path) -> None:
    """The class knows them by the numbers of published models only."""
    for seed, name in enumerate(("one", "two")):
        glm(tmp_path / name, seed)
    recipe = read_recipe(LINEAR).resolved(tmp_path)
    merge(recipe, tmp_path / "out")
    merged, one = (load_file(tmp_path / n / "model.safetensors") for n in ("out", "one"))
    assert merged.keys() == one.keys()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_nextn_predict_layers"]
    tiny.task(tmp_path / "tasks", "first", 4)
    (tmp_path / "suite.yaml").write_text(
        "include_path: tasks\nsearch: [{task: first, metric: acc}]\n"
    )
    suite = load_suite(tmp_path / "suite.yaml")
    scored = [evaluate(model, suite).scores for model in (recipe, tmp_path / "out")]
    assert scored[0] == scored[1]


STACK = """
merge_method: passthrough
slices:
- sources: [{model: one, layer_range: [0, 2]}]
- sources: [{model: two, layer_range: [1, 2]}]
"""


def test_a_stack_has_the_last_models_behind_its_own_layers(tmp_path: Path) -> None:
    """Where transformers and servers look for them: behind the depth that config.json says."""
    for seed, name in enumerate(("one", "two")):
        glm(tmp_path / name, seed)
    merge(read_recipe(STACK).resolved(tmp_path), tmp_path / "out")
    stack, theirs = (load_file(tmp_path / of / "model.safetensors") for of in ("out", "two"))
    behind = {name for name in theirs if name.startswith("model.layers.2.")}
    for name in behind:
        assert torch.equal(stack[name.replace(".2.", ".3.", 1)], theirs[name])
    assert len(stack) == len(theirs) + sum(name.startswith("model.layers.1.") for name in theirs)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (said["num_hidden_layers"], said["num_nextn_predict_layers"]) == (3, 1)


@pytest.mark.parametrize("owner", ["one", "two"])
def test_a_stack_of_models_that_do_not_all_have_them_names_them(tmp_path: Path, owner: str) -> None:
    for seed, name in enumerate(("one", "two")):
        glm(tmp_path / name, seed, further=name == owner)
        if name != owner:
            file = tmp_path / name / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {NEXT_LAYERS: 0}))
    recipe = read_recipe(STACK).resolved(tmp_path)
    plan = plan_merge(recipe, Parents(recipe.models))
    assert len(plan.shapes) == len(load_file(tmp_path / owner / "model.safetensors")) - len(FURTHER)
    assert plan.config[NEXT_LAYERS] == 0
    assert "model.layers.2.eh_proj.weight" in plan.left_out


def test_a_stack_moves_no_layer_of_what_the_class_passes_over(tmp_path: Path) -> None:
    """As of Qwen3-Next, whose layers of further tokens have a name of their own."""
    for seed, name in enumerate(("one", "two")):
        path = glm(tmp_path / name, seed, further=False) / "model.safetensors"
        more = {"mtp.layers.0.enorm.weight": torch.randn(16), "mtp.fc.weight": torch.randn(16, 32)}
        save_file({**load_file(path), **more}, path, {"format": "pt"})
    merge(read_recipe(STACK).resolved(tmp_path), tmp_path / "out")
    stack = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in more.items():
        assert torch.equal(stack[name], tensor)
    assert not any(name.startswith("mtp.layers.1.") for name in stack)


def test_layers_that_one_model_lacks_are_left_out_and_not_counted(tmp_path: Path) -> None:
    glm(tmp_path / "one", 0)
    glm(tmp_path / "two", 1, further=False)
    for text in (LINEAR, LINEAR.replace("one", "x").replace("two", "one").replace("x", "two")):
        recipe = read_recipe(text).resolved(tmp_path)
        plan = plan_merge(recipe, Parents(recipe.models))
        assert plan.config["num_nextn_predict_layers"] == 0
        assert any(name.startswith("model.layers.2.") for name in plan.left_out)


def test_their_embeddings_and_heads_follow_the_vocabulary(tmp_path: Path) -> None:
    glm(tmp_path / "one", 0)
    glm(tmp_path / "two", 1, n_rows=34)
    recipe = read_recipe(LINEAR + "tokenizer_source: union\n").resolved(tmp_path)
    merge(recipe, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name in ("embed_tokens", "shared_head.head"):
        assert merged[f"model.layers.2.{name}.weight"].shape == (34, 16)


def bert() -> transformers.BertConfig:
    return transformers.BertConfig(**SIZES, vocab_size=32)


WHOLE: dict[str, Callable[[], Any]] = {
    "encoder and decoder": lambda: transformers.EncoderDecoderModel(
        transformers.EncoderDecoderConfig.from_encoder_decoder_configs(bert(), bert())
    ),
    "stages": lambda: transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(depths=[1, 2], hidden_sizes=[4, 8], num_stages=2)
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_model_whose_configuration_says_no_depth_is_merged_whole(
    tmp_path: Path, kind: str
) -> None:
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        WHOLE[kind]().save_pretrained(tmp_path / name)
    merge(read_recipe(LINEAR).resolved(tmp_path), tmp_path / "out")
    one, two, out = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two", "out"))
    assert out.keys() == one.keys()
    for name, tensor in out.items():
        assert torch.allclose(tensor, (one[name] + two[name]) / 2, atol=1e-6)
    _, info = type(WHOLE[kind]()).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    if kind == "stages":
        text = (
            "{merge_method: passthrough, slices: [{sources: [{model: one, layer_range: [0, 1]}]}]}"
        )
        with pytest.raises(InputError, match="ConvNextForImageClassification"):
            merge(read_recipe(text).resolved(tmp_path), tmp_path / "none")


def test_a_depth_that_config_leaves_to_its_class_is_the_classs(
    models: Path, tmp_path: Path
) -> None:
    tiny.llama(tmp_path / "one", 0, num_hidden_layers=32)  # as many as LlamaConfig has unasked
    path = tmp_path / "one" / "config.json"
    said = json.loads(path.read_text())
    del said["num_hidden_layers"]
    path.write_text(json.dumps(said))
    recipe = read_recipe("{merge_method: passthrough, models: [{model: one}]}").resolved(tmp_path)
    assert n_layers(Parents(recipe.models), recipe.models[0]) == 32
    path.write_text(json.dumps(said | {"model_type": "of-its-own"}))
    parents = Parents(recipe.models)
    assert n_layers(parents, recipe.models[0], whole=True) == 32
    with pytest.raises(RecipeError, match=r"config\.json has none of .*merge it whole"):
        n_layers(parents, recipe.models[0])
