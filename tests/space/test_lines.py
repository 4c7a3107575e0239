"""LiNeS in a space: two numbers that scale task vectors by depth, and their recipes."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from mergesearch.errors import InputError
from mergesearch.merging import plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe, read_recipe, write_recipe
from mergesearch.searching.policies.starts import starts
from mergesearch.space import SearchSpace, Shape, suggest
from tests import tiny

LINES = {"alpha": 0.5, "beta": 1.0}
ARITHMETIC: dict[str, Any] = {"task_arithmetic": {"weight": 1.0, "lambda": 2.0, "lines": LINES}}


def load(folder: Path, **changes: Any) -> SearchSpace:
    data = {**yaml.safe_load(tiny.SPACE), **changes}
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return SearchSpace.load(path)


def recipe_of(space: SearchSpace, params: dict[str, Any] | None = None) -> Recipe:
    recipe = suggest(space, optuna.trial.FixedTrial(params or {}), Shape(4))
    assert isinstance(recipe, Recipe)
    return recipe


def lambdas(space: SearchSpace, recipe: Recipe) -> list[float]:
    """Lambda of each of the four layers, by the plan of the recipe as mergekit reads it."""
    again = read_recipe(write_recipe(recipe))
    jobs = {job.name: job for job in plan_merge(again, Parents(space.models)).jobs}
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)]
    return [round(jobs[name].arguments["lambda_"], 5) for name in names]


# 2 (0.5 + (l - 1) / 3)
EXPECTED = [1.0, 1.66667, 2.33333, 3.0]


@pytest.mark.parametrize("granularity", [{}, {"blocks": 2}, {"blocks": 4}, {"groups": ["mlp"]}])
def test_lambda_goes_from_alpha_to_alpha_and_beta_over_the_layers(
    family: Path, granularity: dict[str, Any]
) -> None:
    space = load(family, methods=ARITHMETIC, granularity=granularity)
    assert lambdas(space, recipe_of(space)) == pytest.approx(EXPECTED, abs=1e-4)


def test_it_is_a_gradient_of_two_values_in_the_recipe(family: Path) -> None:
    assert recipe_of(load(family, methods=ARITHMETIC, granularity={})).parameters["lambda"] == (
        1.0,
        3.0,
    )


def test_a_lambda_that_varies_by_block_is_scaled_in_each(family: Path) -> None:
    methods = {"magmax": {"lambda": [0.0, 2.0], "lines": LINES}}
    space = load(family, methods=methods, granularity={"blocks": 2})
    recipe = recipe_of(space, {"lambda.0": 1.0, "lambda.1": 2.0})
    assert lambdas(space, recipe) == pytest.approx([0.5, 0.83333, 2.33333, 3.0], abs=1e-4)


def test_both_numbers_are_searched_under_the_methods_name(family: Path) -> None:
    methods = {"task_arithmetic": {"weight": 1.0, "lines": {"beta": [0, 0.5]}}}
    params = {"task_arithmetic.lines.alpha": 0.2, "task_arithmetic.lines.beta": 0.5}
    recipe = recipe_of(load(family, methods=methods, granularity={}), params)
    assert recipe.parameters["lambda"] == (0.2, 0.7)


def test_a_start_is_tried_where_no_scaling_is_in_the_ranges(family: Path) -> None:
    for alpha, held in (([0.5, 1.0], True), ([0.2, 0.9], False)):
        methods = {"task_arithmetic": {"lines": {"alpha": alpha}}}
        points, _ = starts(load(family, methods=methods), Shape(4))
        assert bool(points) == held
        for point in points:
            assert point.params["task_arithmetic.lines.alpha"] == 1.0
            assert point.params["task_arithmetic.lines.beta"] == 0.0


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"methods": {"linear": {"lines": {}}}}, r"linear\.lines scales task vectors"),
        ({"methods": {"ties": {"lines": {"gamma": 1}}}}, "unknown key of ties.lines 'gamma'"),
        (
            {"methods": {"ties": {"lines": {"alpha": "x"}}}},
            r"ties\.lines\.alpha: alpha must be a number",
        ),
        ({"methods": {"ties": {"lines": 3}}}, "ties.lines takes alpha and beta"),
        (
            {"methods": {"ties": {"lines": {}}}, "granularity": {"blocks": 2, "smooth": True}},
            "smooth and a method's lines",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    family: Path, changes: dict[str, Any], rule: str
) -> None:
    with pytest.raises(InputError, match=rule):
        load(family, **changes)
