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
from mergesearch.recipe import Recipe, soup_recipe
from mergesearch.searching.policies.starts import LAMBDAS, starts
from mergesearch.space import SearchSpace, Shape, suggest
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


def meant(space: SearchSpace, label: str) -> Tensors:
    """The tensors that a start is to have by its label."""
    if label in space.parents:
        return stored(space, label)
    base, models = stored(space, "base"), [stored(space, name) for name in space.parents]
    if label == "uniform soup":
        return {n: torch.stack([model[n] for model in models]).mean(0) for n in base}
    scale = float(label.removeprefix("task arithmetic at "))
    return {n: base[n] + scale * sum(model[n] - base[n] for model in models) for n in base}


def three_parents(folder: Path) -> dict[str, str]:
    tiny.llama(folder / "models" / "three", 3, base=folder / "models" / "base")
    return {name: f"models/{name}" for name in ("one", "two", "three")}


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
    parents = three_parents(family)
    for method in ("linear", "task_arithmetic"):
        space = load(family, parents=parents, methods={method: {}})
        found = tensors(dict(tried(space))["uniform soup"], space)
        torch.testing.assert_close(found, meant(space, "uniform soup"), rtol=1e-3, atol=1e-3)


def test_task_arithmetic_is_tried_at_three_scales(family: Path) -> None:
    assert LAMBDAS == (0.3, 0.5, 1.0)
    space = load(family)
    found = dict(tried(space))
    for label in (f"task arithmetic at {scale:g}" for scale in LAMBDAS):
        torch.testing.assert_close(tensors(found[label], space), meant(space, label))


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


ARITHMETIC = {f"task arithmetic at {scale:g}" for scale in LAMBDAS}
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
    "models divided by their weights or not": (
        {"linear": {"normalize": [True, False]}},
        ARITHMETIC,
    ),
    "models that are added": ({"linear": {"normalize": False}}, ARITHMETIC),
    "models that are added and cannot have less weight": (
        {"linear": {"normalize": False, "weight": [0.9, 1.0]}},
        {"one", "two", "uniform soup", *ARITHMETIC},
    ),
    "deltas divided by their weights or not": (
        {"task_arithmetic": {"normalize": [True, False]}},
        set(),
    ),
    "trimmed deltas that are rescaled and divided or not": (
        {"ties": {"normalize": [True, False], "rescale": [True, False]}},
        {"uniform soup", *ARITHMETIC},
    ),
    "trimmed deltas that are always rescaled": (
        {"ties": {"rescale": True}},
        {"uniform soup", *ARITHMETIC},
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
        torch.testing.assert_close(tensors(recipe, space), meant(space, label))


def test_what_is_searched_beside_weights_starts_at_its_default(family: Path) -> None:
    methods = {"ties": {"normalize": [True, False], "rescale": [True, False]}}
    granularity = {"blocks": 2, "by_block": ["normalize"]}
    found, _ = starts(load(family, methods=methods, granularity=granularity), SHAPE)
    assert {start.label for start in found} == {"one", "two"}
    for start in found:
        assert start.params["ties.normalize.0"] and start.params["ties.normalize.1"]
        assert not start.params["ties.rescale"]


def test_the_uniform_soup_is_a_mean_by_equal_weights_wherever_weights_may_be_divided(
    family: Path,
) -> None:
    space = load(family, methods={"linear": {"normalize": [False, True]}})
    found = dict(tried(space))
    soup = soup_recipe(list(space.parents.values()))
    assert digest(tensors(found["uniform soup"], space)) == digest(tensors(soup, space))


@pytest.mark.parametrize("subset", [[1, 2], [2, 2], [2, 3]], ids=str)
def test_a_start_of_more_parents_than_a_subset_has_is_not_tried(
    family: Path, subset: list[int]
) -> None:
    methods: dict[str, Any] = {"linear": {}, "task_arithmetic": {}}
    space = load(family, parents=three_parents(family), methods=methods, subset=subset)
    of_all = {"uniform soup", *ARITHMETIC}
    assert set(starts(space, SHAPE)[1]) == (of_all if subset[1] < 3 else set())
    for label, recipe in tried(space):
        torch.testing.assert_close(tensors(recipe, space), meant(space, label))


@pytest.mark.parametrize(
    ("name", "weights"),
    [("metagpt", {"one": 0.2, "two": 0.8}), ("nan", {"one": 2 / 3, "two": 1 / 3})],
)
def test_weights_in_closed_form_follow_from_the_norms_of_task_vectors(
    family: Path, name: str, weights: dict[str, float]
) -> None:
    """Of norms 1 and 2: their squares, and their inverses, as parts of one."""
    space = load(family, search={"start_from": [name]}, methods={"task_arithmetic": {}})
    shape = Shape(4, norms=lambda: {"one": 1.0, "two": 2.0})
    ((point,), left_out) = starts(space, shape)
    assert (point.label, left_out) == (name, [])
    found = {p: v for p, v in point.params.items() if p.startswith("weight")}
    for parent, weight in weights.items():
        assert {v for p, v in found.items() if p.startswith(f"weight.{parent}")} == {weight}
    _, left_out = starts(space, Shape(4, norms=lambda: {"one": 0.0, "two": 2.0}))
    assert left_out == [name]  # a parent that is the base
