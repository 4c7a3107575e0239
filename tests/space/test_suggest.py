import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.merging import plan
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe, read_recipe, write_recipe
from mergesearch.space import SearchSpace, SoupOrder, boundaries, suggest
from tests import tiny

N_LAYERS = 4
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


def suggestions(space: SearchSpace, n: int = 12) -> list[tuple[dict[str, Any], Any]]:
    """Random candidates of one study, each with the parameters that it was made of."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(n):
        trial = study.ask()
        found.append((trial, suggest(space, trial, N_LAYERS)))
        study.tell(trial, 0.0)
    return [(trial.params, candidate) for trial, candidate in found]


GRANULARITIES: list[dict[str, Any]] = [
    {"blocks": blocks, "groups": groups, "smooth": smooth}
    for blocks, groups, smooth in itertools.product(
        (1, 3), ([], ["self_attn", "mlp"]), (False, True)
    )
]


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_every_suggestion_can_be_merged_and_survives_yaml(
    family: Path, granularity: dict[str, Any]
) -> None:
    space = load(family, granularity=granularity, methods=ALL)
    parents = Parents(space.models)
    methods = set()
    for _, recipe in suggestions(space):
        assert isinstance(recipe, Recipe)
        assert len(plan(recipe, parents).jobs) == len(parents.specs(space.models[0]))
        text = write_recipe(recipe, family)
        assert read_recipe(text).resolved(family) == recipe
        methods.add(recipe.merge_method)
    assert len(methods) > 2


def arguments(space: SearchSpace, recipe: Recipe) -> dict[str, Any]:
    return {job.name: job.arguments for job in plan(recipe, Parents(space.models)).jobs}


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
    for layer in range(N_LAYERS):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        expected = first + layer / (N_LAYERS - 1) * (last - first)
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
        "ties": {"ties.density"},
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
        assert set(params) == {"slerp.pair", "t.0", "t.1"}
        (pair,) = {tuple(str(ref)[-5:] for ref in recipe.models)}
        pairs.add(pair)
        plan(recipe, Parents(space.models))
    assert pairs == {("s/one", "s/two"), ("s/one", "three"), ("s/two", "three")}


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
    blocks = boundaries(n_layers, n_blocks)
    assert [i for first, end in blocks for i in range(first, end)] == list(range(n_layers))
    sizes = [end - first for first, end in blocks]
    assert len(sizes) == n_blocks
    assert max(sizes) - min(sizes) <= 1
