import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.merging import plan_merge
from mergesearch.methods import METHODS
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe, read_recipe, write_recipe
from mergesearch.space import SearchSpace, Shape, SoupOrder, boundaries, suggest
from mergesearch.space.settings import Granularity
from tests import tiny

SHAPE = Shape(n_layers=4)
ALL: dict[str, Any] = {
    "linear": {},
    "slerp": {},
    "task_arithmetic": {},
    "ties": {},
    "dare_linear": {},
}


def load(folder: Path, **changes: Any) -> SearchSpace:
    (folder / "space.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load(tiny.SPACE), **changes}, sort_keys=False)
    )
    return SearchSpace.load(folder / "space.yaml")


def suggestions(
    space: SearchSpace, n: int = 12, shape: Shape = SHAPE
) -> list[tuple[dict[str, Any], Any]]:
    """Random candidates of one study, each with the parameters that it was made of."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(n):
        trial = study.ask()
        found.append((trial, suggest(space, trial, shape)))
        study.tell(trial, 0.0)
    return [(trial.params, candidate) for trial, candidate in found]


GRANULARITIES: list[dict[str, Any]] = [
    {"blocks": blocks, "groups": groups, "smooth": smooth}
    for blocks, groups, smooth in itertools.product(
        (1, 3), ([], ["self_attn", "mlp"]), (False, True)
    )
]
FINER = [
    *GRANULARITIES,
    {"layers_per_block": 3, "by_block": ["density"]},
    {"blocks": 3, "per_parent": ["density"]},
    {"blocks": 4, "groups": ["mlp"], "by_block": ["density"], "per_parent": ["density"]},
]


@pytest.mark.parametrize("granularity", FINER, ids=str)
def test_every_suggestion_can_be_merged_and_survives_yaml(
    family: Path, granularity: dict[str, Any]
) -> None:
    space = load(family, granularity=granularity, methods=ALL)
    parents = Parents(space.models)
    methods = set()
    for _, recipe in suggestions(space):
        assert isinstance(recipe, Recipe)
        assert len(plan_merge(recipe, parents).jobs) == len(parents.specs(space.models[0]))
        text = write_recipe(recipe, family)
        assert read_recipe(text).resolved(family) == recipe
        methods.add(recipe.merge_method)
    assert len(methods) > 2


def arguments(space: SearchSpace, recipe: Recipe) -> dict[str, Any]:
    vocabulary = space.tokenizer_source or "error"
    parents = Parents(space.models, vocabulary=vocabulary, base=space.base)
    return {job.name: job.arguments for job in plan_merge(recipe, parents).jobs}


def test_each_block_and_group_has_the_weights_of_its_own_parameters(family: Path) -> None:
    space = load(
        family,
        granularity={"blocks": 2, "groups": ["mlp"]},
        methods={"task_arithmetic": {"weight": [0.1, 1.1]}},
    )
    for params, recipe in suggestions(space, 3):
        found = arguments(space, recipe)

        def weights(block: int, group: str, params: dict[str, Any] = params) -> list[float]:
            return [round(params[f"weight.{p}.{block}.{group}"], 4) for p in ("one", "two")]

        for layer, block in enumerate((0, 0, 1, 1)):
            prefix = f"model.layers.{layer}"
            assert found[f"{prefix}.mlp.up_proj.weight"]["weight"] == weights(block, "mlp")
            assert found[f"{prefix}.self_attn.q_proj.weight"]["weight"] == weights(block, "rest")
        assert found["model.embed_tokens.weight"]["weight"] == weights(0, "rest")
        assert found["model.norm.weight"]["weight"] == weights(1, "rest")


def test_smooth_weights_go_from_the_first_blocks_to_the_last_ones(family: Path) -> None:
    space = load(family, granularity={"blocks": 2, "smooth": True}, methods={"task_arithmetic": {}})
    params, recipe = suggestions(space, 1)[0]
    found = arguments(space, recipe)
    first, last = (round(params[f"weight.one.{i}"], 4) for i in (0, 1))
    for layer in range(SHAPE.n_layers):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        expected = first + layer / (SHAPE.n_layers - 1) * (last - first)
        assert found[name]["weight"][0] == pytest.approx(expected)


def test_fixed_values_ranges_and_choices_are_kept_to(family: Path) -> None:
    space = load(
        family,
        granularity={"blocks": 2},
        methods={"ties": {"weight": [0.2, 0.7], "density": [0.25, 0.5, 1], "lambda": 0.9}},
    )
    densities = set()
    for _, recipe in suggestions(space):
        for found in arguments(space, recipe).values():
            assert all(0.2 <= weight <= 0.7 for weight in found["weight"])
            assert found["lambda_"] == 0.9
            densities.update(found["density"])
    assert densities == {0.25, 0.5, 1.0}


def test_a_method_keeps_to_its_own_part_of_a_shared_range(family: Path) -> None:
    space = load(family, methods={"linear": {"weight": [0.4, 0.6]}, "ties": {"weight": [-1, 2]}})
    weights: dict[str, list[float]] = {"linear": [], "ties": []}
    for _, recipe in suggestions(space, 20):
        for found in arguments(space, recipe).values():
            weights[recipe.merge_method] += found["weight"]
    assert min(weights["linear"]) >= 0.4 and max(weights["linear"]) <= 0.6
    assert min(weights["ties"]) < 0.4 and max(weights["ties"]) > 0.6


def test_weights_have_one_name_whatever_the_method(family: Path) -> None:
    space = load(family, methods={"linear": {}, "task_arithmetic": {}, "ties": {}, "dare_ties": {}})
    names: dict[str, set[str]] = {}
    for params, recipe in suggestions(space, 20):
        shared = {name for name in params if name.startswith("weight")}
        assert shared == {f"weight.{p}.{i}" for p in ("one", "two") for i in (0, 1)}
        names[recipe.merge_method] = set(params) - shared - {"method"}
    assert names == {
        "linear": set(),
        "task_arithmetic": set(),
        "ties": {"ties.density", "lambda"},
        "dare_ties": {"dare_ties.density"},
    }


def test_methods_may_choose_the_weights_of_others_from_lists_of_their_own(family: Path) -> None:
    methods = {"linear": {"weight": [0.25, 0.5, 1]}, "ties": {"weight": [0, 1.5]}}
    space = load(family, methods=methods)
    tried = {recipe.merge_method for _, recipe in suggestions(space, 20)}
    assert tried == {"linear", "ties"}


def test_slerp_takes_any_two_of_the_parents(family: Path) -> None:
    tiny.llama(family / "models" / "three", 3, base=family / "models" / "base")
    parents = {name: f"models/{name}" for name in ("one", "two", "three")}
    space = load(family, parents=parents, methods={"slerp": {}})
    pairs = set()
    for params, recipe in suggestions(space, 20):
        assert set(params) == {"slerp.pair", "slerp.t.0", "slerp.t.1"}
        (pair,) = {tuple(str(ref)[-5:] for ref in recipe.models)}
        pairs.add(pair)
        plan_merge(recipe, Parents(space.models))
    assert pairs == {("s/one", "s/two"), ("s/one", "three"), ("s/two", "three")}


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_every_candidate_of_a_space_with_a_tokenizer_source_means_one_vocabulary(
    family: Path, granularity: dict[str, Any]
) -> None:
    methods: dict[str, Any] = {"linear": {}, "task_arithmetic": {}, "ties": {}}
    space = load(family, granularity=granularity, methods=methods, tokenizer_source="union")
    plain = load(family, granularity=granularity, methods=methods)
    tried = set()
    candidates = zip(suggestions(space), suggestions(plain), strict=True)
    for (params, recipe), (same_params, without) in candidates:
        assert params == same_params  # the study is the same
        assert isinstance(recipe, Recipe)
        assert recipe.tokenizer_source == "union"
        assert (recipe.base_model, recipe.models) == (space.base, space.models)
        tried.add(recipe.merge_method)
        found, expected = arguments(space, recipe), arguments(space, without)
        if recipe.merge_method == "linear":
            expected = {
                name: {**values, "weight": [0.0, *values["weight"]]}
                for name, values in expected.items()
            }
        assert found == expected
    assert tried == set(methods)


def test_a_greedy_soup_is_an_order_of_all_the_parents(family: Path) -> None:
    space = load(family, methods={"greedy_soup": {}})
    orders = set()
    for params, candidate in suggestions(space):
        assert isinstance(candidate, SoupOrder)
        assert list(candidate.names) == sorted(space.parents, key=lambda p: params[f"order.{p}"])
        orders.add(candidate.names)
    assert orders == {("one", "two"), ("two", "one")}


@given(st.integers(1, 200), st.data())
def test_blocks_hold_each_layer_once_and_are_as_equal_as_can_be(
    n_layers: int, data: st.DataObject
) -> None:
    n_blocks = data.draw(st.integers(1, n_layers))
    blocks = boundaries(n_layers, Granularity(blocks=n_blocks))
    assert [i for first, end in blocks for i in range(first, end)] == list(range(n_layers))
    sizes = [end - first for first, end in blocks]
    assert len(sizes) == n_blocks
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"passthrough"}))
def test_every_method_gives_recipes_that_can_be_merged(family: Path, name: str) -> None:
    parents = {n: f"models/{n}" for n in ("one", "two")}
    if METHODS[name].needs_adapters:
        for seed, n in enumerate(parents):
            tiny.adapter(family / "models" / f"{n}-lora", family / "models" / "base", seed)
        parents = {n: f"models/base+models/{n}-lora" for n in parents}
    space = load(family, parents=parents, methods={name: {}})
    opened = Parents(space.models)
    for _, recipe in suggestions(space, 4):
        assert recipe.merge_method == name
        assert plan_merge(recipe, opened).jobs
        n_models = len([s for s in recipe.slices[0].sources if s.model != recipe.base_model])
        assert n_models == (METHODS[name].n_chosen or 2) - (METHODS[name].base == "first")


def test_what_takes_one_model_searches_which(family: Path) -> None:
    space = load(family, methods={"arcee_fusion": {}})
    chosen = {recipe.slices[0].sources[-1].model for _, recipe in suggestions(space, 12)}
    assert chosen == set(space.parents.values())


def test_a_density_may_differ_by_parent_by_block_and_by_both(family: Path) -> None:
    methods: dict[str, Any] = {"ties": {"weight": 1.0, "lambda": 1.0}}
    names = {}
    for key, lists in {
        "one": {},
        "parents": {"per_parent": ["density"]},
        "blocks": {"by_block": ["density"]},
        "both": {"per_parent": ["density"], "by_block": ["density"]},
    }.items():
        space = load(family, granularity={"blocks": 2, **lists}, methods=methods)
        ((params, recipe),) = suggestions(space, 1)
        names[key] = {name.removeprefix("ties.density") for name in params}
        found = arguments(space, recipe)
        for layer, block in ((0, 0), (3, 1)):
            expected = [
                round(
                    params[f"ties.density{p if p in key_of else ''}{b if b in key_of else ''}"], 4
                )
                for p, b, key_of in (
                    (f".{parent}", f".{block}", _suffixes(key, parent, block))
                    for parent in ("one", "two")
                )
            ]
            assert found[f"model.layers.{layer}.mlp.up_proj.weight"]["density"] == expected
    assert names == {
        "one": {""},
        "parents": {".one", ".two"},
        "blocks": {".0", ".1"},
        "both": {".one.0", ".one.1", ".two.0", ".two.1"},
    }


def _suffixes(key: str, parent: str, block: int) -> set[str]:
    return {
        "one": set(),
        "parents": {f".{parent}"},
        "blocks": {f".{block}"},
        "both": {f".{parent}", f".{block}"},
    }[key]


def test_a_range_of_whole_numbers_is_searched_in_whole_numbers(family: Path) -> None:
    granularity = {"blocks": 2, "by_block": ["max_iter"]}
    methods = {"karcher": {"max_iter": [5, 8]}}
    space = load(family, granularity=granularity, methods=methods)
    tried = set()
    for params, recipe in suggestions(space, 20):
        found = arguments(space, recipe)
        for layer, block in ((0, 0), (3, 1)):
            n = found[f"model.layers.{layer}.mlp.up_proj.weight"]["max_iter"]
            assert n == params[f"karcher.max_iter.{block}"]
            tried.add(n)
    assert tried == {5, 6, 7, 8}


def test_a_group_outside_the_layers_has_one_set_for_the_whole_model(family: Path) -> None:
    granularity = {"blocks": 2, "groups": ["embed_tokens", "mlp"]}
    for smooth in (False, True):
        space = load(
            family,
            granularity={**granularity, "smooth": smooth},
            methods={"task_arithmetic": {"weight": [0, 1]}},
        )
        shape = Shape(4, outside=frozenset({"embed_tokens"}))
        for params, recipe in suggestions(space, 3, shape):
            assert "weight.one.embed_tokens" in params
            assert "weight.one.0.embed_tokens" not in params
            expected = [round(params[f"weight.{p}.embed_tokens"], 4) for p in ("one", "two")]
            assert arguments(space, recipe)["model.embed_tokens.weight"]["weight"] == expected


def test_layers_per_block_cuts_the_depth_from_the_first_layer(family: Path) -> None:
    assert boundaries(10, Granularity(layers_per_block=4)) == [(0, 4), (4, 8), (8, 10)]
    assert Shape(10).n_blocks(Granularity(layers_per_block=4)) == 3
    space = load(
        family,
        granularity={"layers_per_block": 3},
        methods={"task_arithmetic": {"weight": [0, 1]}},
    )
    ((params, recipe),) = suggestions(space, 1)
    found = arguments(space, recipe)
    for layer, block in enumerate((0, 0, 0, 1)):
        expected = round(params[f"weight.one.{block}"], 4)
        assert found[f"model.layers.{layer}.mlp.up_proj.weight"]["weight"][0] == expected


def test_a_subset_holds_as_many_parents_as_it_may(family: Path) -> None:
    for name in ("three", "four"):
        tiny.llama(family / "models" / name, len(name), base=family / "models" / "base")
    parents = {name: f"models/{name}" for name in ("one", "two", "three", "four")}
    methods: dict[str, Any] = {"task_arithmetic": {}, "model_stock": {}, "slerp": {}}
    space = load(family, parents=parents, methods=methods, subset=[2, 3])
    names = {ref: name for name, ref in space.parents.items()}
    sizes = set()
    for params, recipe in suggestions(space, 60):
        chosen = {names[ref] for ref in recipe.models if ref in names}
        if recipe.merge_method == "slerp":
            assert len(chosen) == 2
            continue
        switches = {p: params[f"include.{p}"] for p in parents}
        on = {p for p, value in switches.items() if value >= 0.5}
        assert 2 <= len(chosen) <= 3
        assert chosen == on or (len(on) < 2 and on < chosen) or (len(on) > 3 and chosen < on)
        assert min(switches[p] for p in chosen) >= max(
            (switches[p] for p in parents if p not in chosen), default=0
        )
        if recipe.merge_method == "task_arithmetic":
            assert sum(name.startswith("weight.") for name in params) == 4 * 2
        sizes.add(len(chosen))
        plan_merge(recipe, Parents(space.models))
    assert sizes == {2, 3}


def test_what_means_different_things_has_different_names(family: Path) -> None:
    space = load(family, granularity={}, methods={"slerp": {}, "nearswap": {}, "crossover": {}})
    names = {name for params, _ in suggestions(space, 20) for name in params}
    assert {"slerp.t", "nearswap.t", "crossover.t"} <= names
