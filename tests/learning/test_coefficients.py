"""Coefficients: which tensors they belong to, and the recipes they make."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mergesearch.errors import InputError
from mergesearch.learning import Coefficients
from mergesearch.learning.places import EVERYTHING, Places
from mergesearch.merging import Plan, Routes, plan_merge
from mergesearch.parents import Parents, layer_of, tower_depths, tower_of
from mergesearch.recipe import ModelRef, read_recipe, write_recipe
from mergesearch.space import Granularity, Learned
from tests import tiny

MODULES = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}
MODULES |= {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
MODULES |= {"input_layernorm", "post_attention_layernorm"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = tiny.llama(folder / "base", 0)
    for seed, name in enumerate(("one", "two"), start=1):
        tiny.llama(folder / name, seed, base=base)
        tiny.adapter(folder / f"lora-{name}", base, seed)
    return folder


def refs(models: Path, *names: str) -> dict[str, ModelRef]:
    return {name: ModelRef.model_validate(name).resolved(models) for name in names}


def opened(
    models: Path, *names: str, blocks: Granularity | None = None, **learned: Any
) -> tuple[Coefficients, Plan, Parents]:
    base = refs(models, "base")["base"]
    named = refs(models, *names)
    settings = Learned(**learned)
    parents = Parents([base, *named.values()])
    recipe = settings.template(base, named, None, 0)
    plan = plan_merge(recipe, parents)
    routes = Routes.of(plan, parents)
    return Coefficients(recipe, plan, routes, settings, blocks or Granularity()), plan, parents


COUNTS: dict[str, tuple[dict[str, Any], int]] = {
    # two parents; nine modules in each of four layers, the embeddings and the last norm
    "tensor": ({}, 2 * (4 * 9 + 2)),
    "layer": ({"granularity": "layer"}, 2 * (4 + 2)),
    "block": ({"granularity": "block"}, 2 * (2 * 2 + 2)),
    "model": ({"granularity": "model"}, 2),
    "of all models": ({"of": "tsv_m"}, 4 * 9 + 2),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_recipe_gives_each_tensor_its_own_coefficients(models: Path, name: str) -> None:
    settings, n = COUNTS[name]
    blocks = Granularity(blocks=2, groups=("self_attn",))
    coefficients, plan, parents = opened(models, "one", "two", blocks=blocks, **settings)
    assert len(coefficients) == n
    values = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    recipe = coefficients.recipe(values)
    again = read_recipe(write_recipe(recipe))
    assert again.hash == recipe.hash
    wanted = plan.with_arguments(coefficients.arguments(values.round(decimals=4)))
    for job, other in zip(plan_merge(again, parents).jobs, wanted.jobs, strict=True):
        for argument, value in other.arguments.items():
            assert job.arguments[argument] == pytest.approx(value, abs=1e-9), job.name


def test_of_adapters_only_what_they_change_has_coefficients(models: Path) -> None:
    coefficients, _, _ = opened(models, "base+lora-one", "base+lora-two")
    groups = {coefficient.place.group for coefficient in coefficients.all}
    assert groups == {"self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"}
    assert len(coefficients) == 2 * 4 * 3
    recipe = coefficients.recipe(coefficients.start)
    (part,) = recipe.slices
    filters = [case.filter for case in part.sources[0].parameters["weight"]]  # type: ignore[union-attr]
    assert filters == ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", None]


def test_a_recipe_is_rounded_to_four_digits(models: Path) -> None:
    coefficients, _, _ = opened(models, "one", "two", granularity="layer")
    recipe = coefficients.recipe(torch.full((len(coefficients),), 1 / 3, dtype=torch.float64))
    assert "0.3333" in write_recipe(recipe)
    assert "0.33333" not in write_recipe(recipe)


def test_gradients_of_arguments_add_up_by_coefficient(models: Path) -> None:
    coefficients, plan, _ = opened(models, "one", "two", granularity="model")
    of = {job.name: {"weight": torch.tensor([1.0, 2.0]).double()} for job in plan.jobs}
    n = len(plan.jobs)
    assert coefficients.gradient(of).tolist() == [n, 2 * n]


def test_pull_scale_and_range(models: Path) -> None:
    coefficients, _, _ = opened(models, "one", "two", parameters={"weight": [0, 1]})
    one, two = (ref for ref in refs(models, "one", "two").values())
    values = torch.linspace(0.2, 0.8, len(coefficients), dtype=torch.float64)
    pulled = coefficients.changed(values, 1.0, {one: 1.0, two: 1.0})
    assert len(pulled.unique()) == 2  # of each parent its mean
    halved = coefficients.changed(values, 0.0, {one: 0.5, two: 9.0})
    of_one = torch.tensor([c.parent == one for c in coefficients.all])
    torch.testing.assert_close(halved[of_one], values[of_one] / 2)
    assert bool((halved[~of_one] == 1).all())
    torch.testing.assert_close(coefficients.changed(values, 0.0, {}), values)


def test_copies_of_one_model_leave_nothing_to_learn(models: Path) -> None:
    with pytest.raises(InputError, match="nothing to learn; check that they are not copies"):
        base = refs(models, "base")["base"]
        other = refs(models, "base+lora-one")["base+lora-one"]
        parents = Parents([base, other])
        recipe = Learned().template(base, {"other": other}, None, 0)
        plan = plan_merge(recipe, parents)
        names = tuple(job.name for job in plan.jobs)
        Coefficients(recipe, plan, Routes((), (), names), Learned(), Granularity())


NAMES = {
    "a module ends another's name": [
        "h.0.attn.c.weight", "h.0.cross_attn.c.weight", "h.0.attn.c.bias", "wte.weight",
    ],
    "a tensor outside ends the name of one within": [
        "norm.weight", "layers.0.norm.weight", "layers.0.input_norm.weight", "embed.weight",
    ],
    "a tower of another depth": [
        "model.layers.0.mlp.weight", "eyes.layers.0.mlp.weight", "eyes.layers.1.mlp.weight",
        "eyes.layers.1.attn.weight", "eyes.norm.weight",
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("granularity", ["tensor", "layer", "block"])
def test_a_filter_finds_its_tensors_first(case: str, granularity: Any) -> None:
    names = NAMES[case]
    depths = tower_depths(names)
    places = Places.of(names, depths, 1, Learned(granularity=granularity), Granularity())
    for name in names:
        place = places.place[name]
        assert next(group for group in places.spans if group in name) == place.group
        if (layer := layer_of(name)) is not None:
            # as many values as the tower has layers, each of which then has its own
            assert len(places.spans[place.group]) == depths[tower_of(name)]
            assert places.spans[place.group][layer] == place.span


def test_modules_have_coefficients_of_their_own() -> None:
    names = NAMES["a module ends another's name"]
    place = Places.of(names, {"h.": 1}, 1, Learned(), Granularity()).place
    assert place[names[0]] == place[names[2]] != place[names[1]]


def test_what_no_filter_tells_apart_is_refused() -> None:
    names = ["a.0.b.weight", "a.0.b.c.0.weight", "0.b.weight", "x.1.0.b.weight"]
    with pytest.raises(InputError, match=r"no filters tell .* take granularity: model"):
        Places.of(names, tower_depths(names), 1, Learned(), Granularity())


def seeing(folder: Path, seed: int) -> None:
    """A LLaVA whose eyes are deeper than its language model."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    eyes = {**sizes, "num_hidden_layers": 5, "image_size": 28, "patch_size": 14}
    torch.manual_seed(seed)
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**sizes, num_hidden_layers=3, vocab_size=64),
        vision_config=transformers.CLIPVisionConfig(**eyes),
        image_token_id=40,
    )
    transformers.LlavaForConditionalGeneration(config).float().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("granularity", ["tensor", "layer", "block"])
def test_towers_deeper_than_the_language_model_shift_none_of_its_values(
    tmp_path: Path, granularity: str
) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        seeing(tmp_path / name, seed)
    coefficients, _, parents = opened(tmp_path, "one", "two", granularity=granularity)
    values = torch.rand(len(coefficients), dtype=torch.float64).round(decimals=4)
    merged = plan_merge(coefficients.recipe(values), parents)
    expected = coefficients.arguments(values)
    for job in merged.jobs:
        assert job.arguments["weight"] == pytest.approx(expected[job.name]["weight"]), job.name


def test_a_whole_model_has_no_filter() -> None:
    names = ["a.0.b.weight", "c"]
    places = Places.of(names, {"a.": 1}, 1, Learned(granularity="model"), Granularity())
    assert list(places.spans) == [EVERYTHING]
