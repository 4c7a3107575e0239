"""The JSON schemas that editors check YAML by: all that is accepted, and no misspelt key."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mergesearch.config import read_yaml
from mergesearch.methods import METHODS
from mergesearch.recipe import read_recipe
from mergesearch.recipe.json_schema import recipe_schema
from mergesearch.space import SearchSpace
from mergesearch.space.json_schema import space_schema
from mergesearch.tasks import Suite
from mergesearch.tasks.json_schema import suite_schema
from tests import tiny
from tests.cli.conftest import Cli
from tests.parity.recipes import EXACT, RANDOM

ROOT = Path(__file__).parents[2]
SCHEMAS = {"space": space_schema(), "suite": suite_schema(), "recipe": recipe_schema()}
SHIPPED = [
    *(("space", path) for path in sorted(ROOT.glob("search_spaces/*.yaml"))),
    *(("suite", path) for path in sorted(ROOT.glob("evals/*.yaml"))),
]
PARENTS = {"one": "a/one", "two": "a/two@main+b", "three": {"model": {"path": "c"}}}


def space(**changes: Any) -> dict[str, Any]:
    return {"base": "a/b", "parents": PARENTS, "methods": {"ties": {}}, "suite": "s"} | changes


def genome(**changes: Any) -> dict[str, Any]:
    models = {"models": ["a", "b"], "merge_method": "ties", "base_model": "c"}
    return {"genome": models | changes, "tasks": ["t"]}


def errors(kind: str, data: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMAS[kind]).iter_errors(data)]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_is_one_and_the_file_that_is_shipped_is_current(kind: str, cli: Cli) -> None:
    Draft202012Validator.check_schema(SCHEMAS[kind])
    said = cli("schema", kind)
    assert said.code == 0
    assert json.loads(said.out) == SCHEMAS[kind]
    remedy = f"mergesearch schema {kind} > docs/schemas/{kind}.json"
    assert (ROOT / "docs" / "schemas" / f"{kind}.json").read_text("utf-8") == said.out, remedy


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_a_shipped_yaml_names_its_schema_and_keeps_it(kind: str, path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema=../docs/schemas/{kind}.json"
    assert errors(kind, read_yaml(path)) == []


@pytest.mark.parametrize("text", [*EXACT.values(), *RANDOM.values()])
def test_a_recipe_of_the_parity_tests_keeps_its_schema(text: str) -> None:
    assert errors("recipe", yaml.safe_load(text)) == []


def test_the_tests_own_space_and_suite_keep_their_schemas() -> None:
    assert errors("space", yaml.safe_load(tiny.SPACE)) == []
    assert errors("suite", yaml.safe_load(tiny.SUITE)) == []


@pytest.mark.parametrize(
    "data",
    [
        space(),
        space(base=None, methods={"linear": None, "greedy_soup": {}}),
        space(methods={"ties": {"density": [0.2, 1.0], "lambda": 1, "normalize": [True, False]}}),
        space(methods={"karcher": {"max_iter": [5, 10], "tol": "1e-5"}}),
        space(methods={"dare_ties": {"rescale": [True, False, "density"]}}),
        space(methods={"stacking": {"depth": 4, "scale": [0.5, 1.5]}, "greedy_soup": None}),
        space(granularity={"blocks": "2", "groups": "mlp", "by_block": ["density"]}),
        space(search={"objectives": "score", "constraints": ["size <= 15M", "t>=parents"]}),
        space(search={"minutes": "1e1", "racing": False, "documents": None}),
        space(suite={"search": [{"task": "t", "metric": "acc", "limit": 5}]}),
        genome(),
        genome(normalize=None, filters=["mlp"], smooth=True) | {"limit": 5, "held_out": ["u"]},
    ],
)
def test_a_space_that_is_read_keeps_the_schema(data: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(data))
    SearchSpace.load(tmp_path / "space.yaml")
    assert errors("space", data) == []


@pytest.mark.parametrize(
    "data",
    [
        space(parent={}),
        space(methods={"tise": {}}),
        space(methods={}),
        space(methods={"passthrough": {}}),
        space(methods={"ties": {"densty": 0.5}}),
        space(methods={"ties": {"density": 2}}),
        space(methods={"ties": {"density": [0.5]}}),
        space(methods={"ties": {"normalize": "maybe"}}),
        space(methods={"stacking": {"depth": 4, "segment": 2}}),
        space(granularity={"block": 2}),
        space(search={"sampler": "tpee"}),
        space(search={"constraints": ["size < 15M"]}),
        space(suite={"search": [{"task": "t", "metrics": "acc"}]}),
        {key: value for key, value in space().items() if key != "parents"},
        genome(layer_granularty=2),
        genome(merge_method="della"),
        genome() | {"shufle": True},
    ],
)
def test_a_misspelt_space_does_not(data: dict[str, Any]) -> None:
    assert errors("space", data)


@pytest.mark.parametrize(
    "data",
    [
        {"include_path": "a", "search": [{"task": "t", "metric": "acc"}], "held_out": []},
        {"include_path": ["a", "b"], "search": [{"task": "t", "metric": "acc", "weight": "1e-1"}]},
    ],
)
def test_a_suite_that_is_read_keeps_the_schema(data: dict[str, Any]) -> None:
    Suite.model_validate(data)
    assert errors("suite", data) == []


@pytest.mark.parametrize(
    "data",
    [
        {"search": []},
        {"serch": [{"task": "t", "metric": "acc"}]},
        {"search": [{"task": "t", "metric": "acc", "limt": 3}]},
        {"search": [{"task": "t", "metric": "acc", "limit": 0}]},
    ],
)
def test_a_misspelt_suite_does_not(data: dict[str, Any]) -> None:
    assert errors("suite", data)


RECIPES = [
    "{merge_method: linear, models: [{model: a, parameters: {weight: 1}}], slices: null}",
    "{merge_method: linear, models: [{model: a}], parameters: {weight: 1, int8_mask: true}}",
    "{merge_method: linear, dtype: bfloat16, tokenizer: {source: null, tokens: null},"
    " base_model: b, models: [{model: a, parameters: {weight: [0.1, 1e-1]}}], modules: null}",
    "{merge_method: linear, parameters: {weight: [{filter: mlp, value: [1, 0]}, {value: 1}]},"
    " slices: [{sources: [{model: a, layer_range: [0, 2]}]}], seed: 3}",
    "{merge_method: ties, base_model: {model: {path: b}}, models: [{model: a+c, parameters: null}],"
    " parameters: {weight: {value: 1, filter: null}, density: null}, tokenizer_source: base}",
]


@pytest.mark.parametrize("text", RECIPES)
def test_a_recipe_that_is_read_keeps_the_schema(text: str) -> None:
    read_recipe(text)
    assert errors("recipe", yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "{merge_method: liner, models: [{model: a}]}",
        "{merge_methods: linear, models: [{model: a}]}",
        "{merge_method: linear}",
        "{merge_method: linear, models: []}",
        "{merge_method: linear, models: [{model: a}], slices: [{sources: [{model: a}]}]}",
        "{merge_method: linear, models: [{model: a, layer_range: [0, 2]}]}",
        "{merge_method: linear, models: [{model: a, parameters: {wieght: 1}}]}",
        "{merge_method: linear, models: [{model: a}], parameters: {weight: {valu: 1}}}",
        "{merge_method: linear, models: [{model: a}], dtype: float64}",
        "{merge_method: linear, slices: [{sources: [{model: a}]}]}",
    ],
)
def test_a_misspelt_recipe_does_not(text: str) -> None:
    assert errors("recipe", yaml.safe_load(text))


def test_a_spaces_schema_knows_every_method_and_its_parameters() -> None:
    methods = SCHEMAS["space"]["$defs"]["SearchSpace"]["properties"]["methods"]["properties"]
    assert methods.keys() == ({*METHODS} - {"passthrough"}) | {"greedy_soup", "stacking", "learned"}
    for name in METHODS.keys() & methods.keys():
        named = [p for p in methods[name]["properties"] if p != "lines"]
        assert named == [p.name for p in METHODS[name].parameters]


def test_keys_are_described_by_the_models_comments() -> None:
    limit = SCHEMAS["suite"]["$defs"]["TaskSpec"]["properties"]["limit"]
    assert limit["description"] == "Score the first so many documents only, of each task."
