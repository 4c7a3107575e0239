"""Slices, depths, filters and defaults, resolved against the parents' tensors."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from mergesearch import merge
from mergesearch.errors import InputError, RecipeError
from mergesearch.merging import Job, Plan, merged_tensors, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe, read_recipe
from tests import tiny
from tests.merging import recipes
from tests.merging.conftest import Read

UP, DOWN = "mlp.up_proj.weight", "mlp.down_proj.weight"


def planned(recipe: Recipe) -> Plan:
    return plan_merge(recipe, Parents(recipe.models))


def jobs(recipe: Recipe) -> dict[str, Job]:
    return {job.name: job for job in planned(recipe).jobs}


def test_layers_of_two_parents_stack_into_a_deeper_model_that_generates(
    read: Read, models: Path, tmp_path: Path
) -> None:
    merge(read(recipes.STACK.format(p="u-")), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 6
    one, two = (load_file(models / name / "model.safetensors") for name in ("u-one", "u-two"))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    origin = [(one, 0), (one, 1), (one, 2), (two, 1), (two, 2), (two, 3)]
    for layer, (parent, index) in enumerate(origin):
        for name in (UP, DOWN, "self_attn.o_proj.weight", "input_layernorm.weight"):
            expected = parent[f"model.layers.{index}.{name}"]
            assert torch.equal(merged[f"model.layers.{layer}.{name}"], expected)
    # what precedes the layers is the first slice's, what follows them the last's
    assert torch.equal(merged["model.embed_tokens.weight"], one["model.embed_tokens.weight"])
    assert torch.equal(merged["model.norm.weight"], two["model.norm.weight"])
    assert torch.equal(merged["lm_head.weight"], two["lm_head.weight"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = tokenizer("w1 w2 w3", return_tensors="pt").input_ids
    written = model.generate(prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert written.shape == (1, prompt.shape[1] + 5)


def test_a_list_with_an_entry_for_each_layer_follows_the_stacking(tmp_path: Path) -> None:
    for name, windows in (("one", 1), ("two", 3)):
        config = Qwen2Config(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True,
            sliding_window=8, max_window_layers=windows,
        )  # fmt: skip
        Qwen2ForCausalLM(config).save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    recipe = read_recipe(recipes.STACK.format(p="")).resolved(tmp_path)
    full, sliding = "full_attention", "sliding_attention"
    config = planned(recipe).config
    assert config["layer_types"] == [full, sliding, sliding, full, full, sliding]
    merge(recipe, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 6
    assert model.generate(torch.tensor([[1, 2]]), max_new_tokens=3).shape[0] == 1


def test_scale_multiplies_the_tensors_its_filter_names(read: Read, models: Path) -> None:
    text = "{merge_method: passthrough, models: [{model: one, parameters: {scale: [%s]}}]}"
    recipe = read(text % "{filter: down_proj, value: [0, 0.6]}, {filter: o_proj, value: -2}")
    one = load_file(models / "one" / "model.safetensors")
    merged = dict(merged_tensors(recipe, Parents(recipe.models)))
    for layer, factor in enumerate((0.0, 0.2, 0.4, 0.6)):
        name = f"model.layers.{layer}.{DOWN}"
        torch.testing.assert_close(merged[name], one[name] * factor)
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        assert torch.equal(merged[name], one[name] * -2)
        name = f"model.layers.{layer}.{UP}"
        assert torch.equal(merged[name], one[name])


def test_a_gradient_runs_from_the_first_to_the_last_layer_of_its_slice(read: Read) -> None:
    found = jobs(read(recipes.LINEAR.format(p="")))
    weights = [found[f"model.layers.{i}.{UP}"].arguments["weight"][0] for i in range(4)]
    assert weights == pytest.approx([0.2, 0.2 + 0.7 / 3, 0.2 + 1.4 / 3, 0.9])
    assert found["model.embed_tokens.weight"].arguments["weight"] == [0.2, 0.5]


def test_what_a_filter_does_not_name_falls_through_to_the_next_scope(read: Read) -> None:
    found = jobs(
        read("""
merge_method: ties
base_model: base
slices:
  - sources:
      - {model: one, layer_range: [0, 2], parameters: {weight: [{filter: mlp, value: 1}]}}
      - {model: two, layer_range: [0, 2], parameters: {weight: 2}}
    parameters: {weight: [{filter: self_attn, value: 3}], lambda: [{filter: mlp, value: 0.1}]}
parameters: {weight: 4, lambda: [{filter: self_attn, value: 0.2}]}
""")
    )
    mlp, attention = (found[f"model.layers.0.{n}"] for n in (UP, "self_attn.q_proj.weight"))
    norm = found["model.norm.weight"]
    assert [job.arguments["weight"] for job in (mlp, attention, norm)] == [[1, 2], [3, 2], [4, 2]]
    assert [job.arguments["lambda_"] for job in (mlp, attention, norm)] == [0.1, 0.2, 1.0]
    assert [job.arguments["density"] for job in (mlp, norm)] == [[1, 1], [1, 1]]
    assert [str(source.model) for source in mlp.models] == [str(s.model) for s in norm.models]
    assert mlp.base is not None


def test_a_filter_is_tried_against_the_name_in_the_source_model(read: Read) -> None:
    """Layer 2 of the parent becomes layer 0: the source's own parameters see the parent's name."""
    found = jobs(
        read("""
merge_method: passthrough
slices:
  - sources:
      - model: one
        layer_range: [2, 3]
        parameters: {scale: [{filter: layers.2., value: 0.5}]}
""")
    )
    assert found[f"model.layers.0.{UP}"].arguments["scale"] == [0.5]


def test_the_plan_knows_names_shapes_dtypes_and_size_before_a_weight_is_read(
    read: Read, models: Path
) -> None:
    plan = planned(read("out_dtype: bfloat16" + recipes.TIES.format(p="u-")))
    one = load_file(models / "u-one" / "model.safetensors")
    assert {job.name: job.shape for job in plan.jobs} == {n: tuple(t.shape) for n, t in one.items()}
    assert {job.dtype for job in plan.jobs} == {torch.bfloat16}
    assert plan.n_bytes == 2 * sum(tensor.numel() for tensor in one.values())
    layers = [job.name.split(".")[2] for job in plan.jobs if "layers" in job.name]
    assert layers == sorted(layers)


def test_the_result_has_the_dtype_of_the_base_unless_the_recipe_says(read: Read) -> None:
    mixed = (
        "{{merge_method: task_arithmetic, base_model: {}, parameters: {{weight: 1}},"
        " models: [{{model: {}}}]}}"
    )
    assert {job.dtype for job in jobs(read(mixed.format("h-base", "one"))).values()} == {
        torch.bfloat16
    }
    assert {job.dtype for job in jobs(read(mixed.format("base", "h-one"))).values()} == {
        torch.float32
    }


REFUSED = {
    "beyond the last layer": (
        "{merge_method: passthrough, slices: [{sources: [{model: one, layer_range: [2, 5]}]}]}",
        r"layer_range must lie within the model's 4 layers, got \[2, 5\] for .*one",
    ),
    "beyond the last layer of one of two": (
        "{merge_method: linear, parameters: {weight: 1}, slices: [{sources: "
        "[{model: one, layer_range: [0, 2]}, {model: two, layer_range: [3, 5]}]}]}",
        r"within the model's 4 layers, got \[3, 5\] for .*two",
    ),
    "weights that sum to zero": (
        "{merge_method: linear, models: [{model: one, parameters: {weight: 1}},"
        " {model: two, parameters: {weight: [{filter: mlp, value: -1}, {value: 1}]}}]}",
        r"linear: weights must not sum to zero, got \[1\.0, -1\.0\].*for model\.layers\.0\.mlp",
    ),
    "a model without weight": (
        "{merge_method: linear, models: [{model: one, parameters: {weight: 1}}, {model: two}]}",
        "linear needs a weight for every model, but .*two has none for model.embed_tokens.weight",
    ),
    "a filter that names too few": (
        "{merge_method: linear, models: [{model: one,"
        " parameters: {weight: [{filter: embed, value: 1}]}}]}",
        r"linear needs a weight for every model, but .*one has none for model\.layers\.0",
    ),
    "slerp without t": (
        "{merge_method: slerp, base_model: one, models: [{model: two}]}",
        "slerp needs a t, but model.embed_tokens.weight has none",
    ),
    "a base of unclear layers": (
        "{merge_method: ties, base_model: base, parameters: {weight: 1}, slices: [{sources: "
        "[{model: one, layer_range: [0, 2]}, {model: two, layer_range: [2, 4]}]}]}",
        "the base .*base must be a source of its own where the sources' layer ranges differ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_recipe_that_its_parents_cannot_build_is_refused(
    read: Read, tmp_path: Path, text: str, message: str
) -> None:
    recipe = read(text)
    with pytest.raises(RecipeError, match=message):
        planned(recipe)
    with pytest.raises(InputError):
        merge(recipe, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 5}, r"must be equally deep, got .*base: 4, .*odd: 5 layers"),
        (
            {"intermediate_size": 20},
            r"layers\.0\.mlp\.\w+\.weight must have one shape in all models, got .*16.* in .*base",
        ),
        ({"attention_bias": True}, r"has no tensor model\.layers\.0\.self_attn\.k_proj\.bias"),
    ],
    ids=str,
)
def test_models_that_do_not_fit_are_named_tensor_by_tensor(
    models: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    tiny.llama(tmp_path / "odd", 1, **changes)
    recipe = read_recipe(
        f"{{merge_method: linear, parameters: {{weight: 1}}, "
        f"models: [{{model: {models}/base}}, {{model: {tmp_path}/odd}}]}}"
    )
    with pytest.raises(RecipeError, match=message):
        planned(recipe)


def test_a_tensor_that_one_model_lacks_is_named(models: Path, tmp_path: Path) -> None:
    tiny.llama(tmp_path / "biased", 1, attention_bias=True)
    names = [f"{tmp_path}/biased", f"{models}/base"]
    for order in (names, names[::-1]):
        recipe = read_recipe(
            f"{{merge_method: linear, parameters: {{weight: 1}}, "
            f"models: [{{model: {order[0]}}}, {{model: {order[1]}}}]}}"
        )
        with pytest.raises(
            RecipeError, match=r"base has no tensor model\.layers\.0\.self_attn\..*bias"
        ):
            planned(recipe)


def test_rotary_tables_of_old_checkpoints_are_left_out(tmp_path: Path) -> None:
    for name, tables in (("old", range(4)), ("new", range(0))):
        folder = tiny.llama(tmp_path / name, 1)
        tensors = load_file(folder / "model.safetensors")
        for i in tables:
            tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    text = (
        "{{merge_method: linear, parameters: {{weight: 1}},"
        " models: [{{model: {}}}, {{model: {}}}]}}"
    )
    for order in (("old", "new"), ("new", "old")):
        found = jobs(read_recipe(text.format(*order)).resolved(tmp_path))
        assert found.keys() == load_file(tmp_path / "new" / "model.safetensors").keys()


def test_layers_of_different_tensors_are_merged_each_by_its_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        folder = tiny.llama(tmp_path / name, seed)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.2.mlp.extra"] = torch.full((3,), float(seed))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = read_recipe(
        "{merge_method: linear, parameters: {weight: 1}, models: [{model: one}, {model: two}]}"
    ).resolved(tmp_path)
    merged = dict(merged_tensors(recipe, Parents(recipe.models)))
    assert merged["model.layers.2.mlp.extra"].tolist() == [0.5] * 3
    assert [name for name in merged if "extra" in name] == ["model.layers.2.mlp.extra"]


def test_a_layer_without_tensors_is_named(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "one", 0)
    tensors = load_file(folder / "model.safetensors")
    left = {name: tensor for name, tensor in tensors.items() if ".layers.3." not in name}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = read_recipe("{merge_method: passthrough, models: [{model: one}]}").resolved(tmp_path)
    with pytest.raises(RecipeError, match="one has no tensors of layer 3"):
        planned(recipe)


def test_a_configuration_whose_class_means_another_depth_is_refused(
    read: Read, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "one", tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    del config["num_hidden_layers"]
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config))
    recipe = read(f"{{merge_method: passthrough, models: [{{model: {tmp_path}/odd}}]}}")
    with pytest.raises(RecipeError, match=r"has no tensors of layer 4"):  # of the class's 32
        planned(recipe)
