from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from torch import Tensor

from mergesearch.merging import Digest, merged_tensors
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.soups import soup_recipe
from mergesearch.space import LAMBDAS, SearchSpace, Shape, starts, suggest
from tests import tiny

Tensors = dict[str, Tensor]
SHAPE = Shape(n_layers=4)


def load(folder: Path, **changes: Any) -> SearchSpace:
    (folder / "space.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load(tiny.SPACE), **changes}, sort_keys=False)
    )
    return SearchSpace.load(folder / "space.yaml")


def tried(space: SearchSpace) -> Iterator[tuple[str, Recipe]]:
    """The recipes that a study of a space begins with, by label."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for start in starts(space, SHAPE)[0]:
        study.enqueue_trial(start.params)
        trial = study.ask()
        recipe = suggest(space, trial, SHAPE)
        assert isinstance(recipe, Recipe)
        # nothing was left to the sampler
        assert trial.params == start.params
        yield start.label, recipe


def tensors(recipe: Recipe, space: SearchSpace) -> Tensors:
    return dict(merged_tensors(recipe, Parents(space.models)))


def digest(found: Tensors) -> str:
    whole = Digest()
    for name, tensor in found.items():
        whole.add(name, tensor)
    return whole.hexdigest()


def stored(space: SearchSpace, name: str) -> Tensors:
    parents = Parents(space.models)
    ref = space.parents.get(name, space.base)
    assert ref is not None
    return {tensor: parents.read(ref, tensor) for tensor in parents.specs(ref)}


GRANULARITIES: list[dict[str, Any]] = [
    {},
    {"blocks": 3},
    {"blocks": 2, "groups": ["mlp"]},
    {"blocks": 2, "groups": ["mlp"], "smooth": True},
    {"layers_per_block": 3},
]


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("methods", [{"linear": {}}, {"linear": {}, "ties": {}}], ids=str)
def test_a_parent_and_the_uniform_soup_are_rebuilt_bit_by_bit(
    family: Path, granularity: dict[str, Any], methods: dict[str, Any]
) -> None:
    space = load(family, granularity=granularity, methods=methods)
    found = dict(tried(space))
    for name in ("one", "two"):
        assert digest(tensors(found[name], space)) == digest(stored(space, name))
    soup = soup_recipe(list(space.parents.values()))
    assert digest(tensors(found["uniform soup"], space)) == digest(tensors(soup, space))


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_method_with_a_base_rebuilds_a_parent_to_the_last_rounding(
    family: Path, method: str
) -> None:
    space = load(family, methods={method: {}})
    found = dict(tried(space))
    for name in ("one", "two"):
        torch.testing.assert_close(tensors(found[name], space), stored(space, name))


def test_the_uniform_soup_of_three_is_their_mean(family: Path) -> None:
    tiny.llama(family / "models" / "three", 3, base=family / "models" / "base")
    parents = {name: f"models/{name}" for name in ("one", "two", "three")}
    for method in ("linear", "task_arithmetic"):
        space = load(family, parents=parents, methods={method: {}})
        models = [stored(space, name) for name in parents]
        mean = {name: sum(m[name] for m in models) / 3 for name in models[0]}
        found = tensors(dict(tried(space))["uniform soup"], space)
        torch.testing.assert_close(found, mean, rtol=1e-3, atol=1e-3)


def test_task_arithmetic_is_tried_at_three_scales(family: Path) -> None:
    assert LAMBDAS == (0.3, 0.5, 1.0)
    space = load(family)
    found = dict(tried(space))
    base, one, two = (stored(space, name) for name in ("base", "one", "two"))
    for scale in LAMBDAS:
        recipe = found[f"task arithmetic at {scale:g}"]
        expected = {n: base[n] + scale * (one[n] + two[n] - 2 * base[n]) for n in base}
        torch.testing.assert_close(tensors(recipe, space), expected)


def test_the_starts_come_in_the_order_of_what_is_known_to_be_good(family: Path) -> None:
    assert [start.label for start in starts(load(family), SHAPE)[0]] == [
        "uniform soup",
        "task arithmetic at 0.3",
        "task arithmetic at 0.5",
        "task arithmetic at 1",
        "one",
        "two",
    ]
    only = load(family, search={"start_from": ["uniform"]})
    assert [start.label for start in starts(only, SHAPE)[0]] == ["uniform soup"]
    assert starts(load(family, search={"start_from": []}), SHAPE) == ([], [])


SPACES_WITHOUT: dict[str, tuple[dict[str, Any], set[str]]] = {
    "weights that reach no parent": (
        {"linear": {"weight": [0.2, 0.8]}},
        {"one", "two", "task arithmetic at 0.3", "task arithmetic at 0.5", "task arithmetic at 1"},
    ),
    "weights below one": (
        {"task_arithmetic": {"weight": [0, 0.6]}},
        {"one", "two", "task arithmetic at 1"},
    ),
    "another lambda": (
        {"task_arithmetic": {"lambda": 0.5}},
        {"one", "two", "uniform soup", *(f"task arithmetic at {s:g}" for s in LAMBDAS)},
    ),
    "deltas divided by their weights": (
        {"task_arithmetic": {"normalize": True}},
        {"task arithmetic at 0.3", "task arithmetic at 1"},  # two weights of 0.5 sum to one
    ),
    "deltas that are always trimmed": (
        {"ties": {"density": [0.2, 0.9]}},
        {"one", "two", "uniform soup", *(f"task arithmetic at {s:g}" for s in LAMBDAS)},
    ),
    "deltas trimmed to a fixed density": (
        {"ties": {"density": 0.5}},
        {"one", "two", "uniform soup", *(f"task arithmetic at {s:g}" for s in LAMBDAS)},
    ),
    "deltas trimmed to one of two densities or not at all": (
        {"ties": {"density": [0.2, 0.5, 1.0]}},
        {"uniform soup", *(f"task arithmetic at {s:g}" for s in LAMBDAS)},
    ),
    "a single weight": (
        {"task_arithmetic": {"weight": 0.3}},
        {"one", "two", "uniform soup", *(f"task arithmetic at {s:g}" for s in LAMBDAS)},
    ),
    "only slerp": (
        {"slerp": {}},
        {"one", "two", "uniform soup", *(f"task arithmetic at {s:g}" for s in LAMBDAS)},
    ),
}


@pytest.mark.parametrize(("methods", "without"), SPACES_WITHOUT.values(), ids=SPACES_WITHOUT)
def test_a_start_outside_the_space_is_named_and_not_tried(
    family: Path, methods: dict[str, Any], without: set[str]
) -> None:
    space = load(family, methods=methods)
    _, left_out = starts(space, SHAPE)
    assert set(left_out) == without
    for label, recipe in tried(space):
        assert label not in without
        if label in space.parents:
            torch.testing.assert_close(tensors(recipe, space), stored(space, label))
