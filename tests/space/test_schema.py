from pathlib import Path
from typing import Any

import pytest
import yaml

from mergesearch.errors import InputError
from mergesearch.methods import METHODS
from mergesearch.space import SearchSpace
from mergesearch.space.domains import Choice, Fixed, Range, WholeRange
from tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A space whose models and suite exist by name only: reading a space opens neither."""
    for name in ("base", "one", "two"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "suite.yaml").write_text(tiny.SUITE)
    return tmp_path


def load(folder: Path, **changes: Any) -> SearchSpace:
    data = {**yaml.safe_load(tiny.SPACE), **changes}
    path = folder / "space.yaml"
    given = {key: value for key, value in data.items() if value is not None}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return SearchSpace.load(path)


REFUSED = {
    "unknown key": ({"methdos": {}}, "unknown key 'methdos'; did you mean 'methods'?"),
    "unknown key below": (
        {"search": {"trails": 3}},
        "search: unknown key 'trails'; did you mean 'trials'?",
    ),
    "unknown method": (
        {"methods": {"tise": {}}},
        "methods: unknown method 'tise'; did you mean 'ties'?",
    ),
    "method without a search": (
        {"methods": {"passthrough": {}}},
        "passthrough is searched as stacking",
    ),
    "no method": ({"methods": {}}, "methods must name at least one method"),
    "unknown sampler": (
        {"search": {"sampler": "tpee"}},
        "search.sampler: unknown sampler 'tpee'; did you mean 'tpe'? available: auto, tpe, gp,",
    ),
    "unknown start": ({"search": {"start_from": ["best"]}}, "search.start_from.0: "),
    "unknown parameter": (
        {"methods": {"ties": {"dense": 0.5}}},
        "unknown parameter of ties 'dense'; did you mean 'density'?",
    ),
    "density of zero": (
        {"methods": {"ties": {"density": 0}}},
        "ties.density: density must be in (0, 1], got 0",
    ),
    "range of densities from zero": (
        {"methods": {"ties": {"density": [0, 1]}}},
        "ties.density: density must be in (0, 1], got 0",
    ),
    "density above one": (
        {"methods": {"dare_ties": {"density": [0.5, 1.5]}}},
        "dare_ties.density: density must be in (0, 1], got 1.5",
    ),
    "NaN": (
        {"methods": {"ties": {"weight": float("nan")}}},
        "ties.weight: weight must be finite, got nan",
    ),
    "infinite range": (
        {"methods": {"ties": {"weight": [0, float("inf")]}}},
        "ties.weight: weight must be finite, got inf",
    ),
    "range upside down": (
        {"methods": {"ties": {"weight": [1.5, 0.5]}}},
        "ties.weight: a range is [low, high] with low < high, got [1.5, 0.5]",
    ),
    "range of nothing": (
        {"methods": {"ties": {"weight": [1, 1]}}},
        "ties.weight: a range is [low, high] with low < high, got [1, 1]",
    ),
    "list of one": (
        {"methods": {"ties": {"weight": [1]}}},
        "ties.weight: a list needs two values or more, got [1]",
    ),
    "word for a number": (
        {"methods": {"ties": {"weight": "heavy"}}},
        "ties.weight: weight must be a number, got 'heavy'",
    ),
    "ties without a base": ({"base": None, "methods": {"ties": {}}}, "ties needs a base"),
    "slerp with one parent": (
        {"parents": {"one": "models/one"}, "methods": {"slerp": {}}},
        "slerp needs at least 2 parents, got 1",
    ),
    "cmaes with several methods": (
        {"search": {"sampler": "cmaes"}},
        "sampler cmaes searches one method, since it draws categorical choices at random; "
        "got linear, task_arithmetic, ties",
    ),
    "base among the parents": (
        {"parents": {"one": "models/one", "origin": "models/base"}},
        "must not be one of the parents as well",
    ),
    "base among the parents by another spelling": (
        {"parents": {"one": "models/one", "origin": "models/../models/base"}},
        "must not be one of the parents as well",
    ),
    "same model twice": (
        {"parents": {"one": "models/one", "again": "models/one"}},
        "parents: one and again are the same model",
    ),
    "same model twice by another spelling": (
        {"parents": {"one": "models/one", "again": "./models/one/"}},
        "parents: one and again are the same model",
    ),
    "parent named as the base": ({"parents": {"base": "models/one"}}, "must not be named 'base'"),
    "parent named as the best of them": (
        {"parents": {"parents": "models/one"}},
        "parents: a parent must not be named 'parents'; in a constraint it stands for the best of "
        "them; rename it",
    ),
    "parent named as the best of the search": (
        {"parents": {"winner": "models/one"}},
        "parents: a parent must not be named 'winner'; so the leaderboard calls the best",
    ),
    "parent that a constraint takes for a number": (
        {
            "parents": {"7B": "models/one", "two": "models/two"},
            "search": {"constraints": ["score >= 7B"]},
        },
        "search.constraints: score >= 7000000000: the bound may be a number or the parent '7B'; "
        "rename the parent",
    ),
    "subset of more than there are": (
        {"subset": [1, 3]},
        "subset is how many of the 2 parents go in, at least and at most, got [1, 3]",
    ),
    "subset of fewer than slerp takes": (
        {"subset": [1, 1], "methods": {"linear": {}, "slerp": {}}},
        "slerp merges 2 of the parents, by its own choice, but subset is [1, 1]; drop slerp or "
        "widen subset",
    ),
    "subset of more than nearswap takes": (
        {"subset": [2, 2], "methods": {"nearswap": {}}},
        "nearswap merges 1 of the parents, by its own choice, but subset is [2, 2]",
    ),
    "subset of more than a stack may have": (
        {"subset": [2, 2], "methods": {"stacking": {"depth": 4}}},
        "stacking merges 1 to 2 of the parents, by its own choice, but subset is [2, 2]",
    ),
    "subset of fewer than a greedy soup may have": (
        {"subset": [1, 1], "methods": {"greedy_soup": {}}},
        "greedy_soup merges 1 to 2 of the parents, by its own choice, but subset is [1, 1]",
    ),
    "whole numbers between blocks": (
        {
            "methods": {"karcher": {"max_iter": [5, 10, 20]}},
            "granularity": {"blocks": 2, "smooth": True, "by_block": ["max_iter"]},
        },
        "granularity: smooth interpolates what varies by block, but max_iter is a whole number; "
        "leave max_iter out of by_block, or smooth out",
    ),
    "range of part of a whole number": (
        {"methods": {"karcher": {"max_iter": [5, 10.5]}}},
        "karcher.max_iter: max_iter must be a whole number, got 10.5",
    ),
    "range of whole numbers upside down": (
        {"methods": {"karcher": {"max_iter": [10, 5]}}},
        "karcher.max_iter: a range is [low, high] with low < high, got [10, 5]",
    ),
    "parent with a dot in its name": (
        {"parents": {"v1.5": "models/one"}},
        "a parent's name is letters, digits, _ and -, got 'v1.5'",
    ),
    "no parents": ({"parents": {}}, "parents: "),
    "missing suite": ({"suite": "no.yaml"}, "suite: no such file: "),
    "missing model": ({"parents": {"one": "models/a/b/c"}}, "no such model folder: "),
    "tokenizer of no model": ({"tokenizer_source": "models/a/b/c"}, "no such model folder: "),
    "two tokenizers": ({"tokenizer_source": ["one"]}, "tokenizer_source"),
    "tokenizer without a base": (
        {"base": None, "methods": {"linear": {}}, "tokenizer_source": "union"},
        "tokenizer_source union needs a base; name the model whose tokens come first",
    ),
    "tokenizer of a pair": (
        {"methods": {"slerp": {}}, "tokenizer_source": "base"},
        "all candidates must have one vocabulary, but slerp merges models of its own choice",
    ),
    "no blocks": ({"granularity": {"blocks": 0}}, "granularity.blocks: "),
    "no trials": ({"search": {"trials": 0}}, "search.trials: "),
    "soup with parameters": (
        {"methods": {"greedy_soup": {"weight": 1}}},
        "greedy_soup has no parameters",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said_in_one_line_after_the_file(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(folder, **changes)
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(folder / "space.yaml"))
    assert "\n" not in text


def test_paths_resolve_against_the_folder_of_the_space(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    space = load(folder)
    assert [str(model) for model in space.models] == [
        str(folder / "models" / name) for name in ("base", "one", "two")
    ]
    assert space.suite == folder / "suite.yaml"


def test_a_scalar_is_fixed_two_numbers_are_a_range_and_other_lists_are_choices(
    folder: Path,
) -> None:
    ties = {"weight": [0, 1], "density": [0.2, 0.5, 1], "lambda": 1, "normalize": [True, False]}
    assert load(folder, methods={"ties": ties}).methods["ties"] == {
        "weight": Range(0.0, 1.0),
        "density": Choice((0.2, 0.5, 1.0)),
        "lambda": Fixed(1.0),
        "normalize": Choice((True, False)),
    }


def test_two_whole_numbers_are_a_range_of_whole_numbers(folder: Path) -> None:
    def domain(max_iter: list[int]) -> Any:
        return load(folder, methods={"karcher": {"max_iter": max_iter}}).domains["karcher"]

    assert domain([5, 10]) == {"max_iter": WholeRange(5, 10)}
    assert domain([5, 10, 20]) == {"max_iter": Choice((5, 10, 20))}


def test_a_parent_may_have_a_number_for_a_name_that_no_constraint_has(folder: Path) -> None:
    parents = {"7B": "models/one", "1e3": "models/two"}
    assert list(load(folder, parents=parents).parents) == ["7B", "1e3"]
    load(folder, parents=parents, search={"constraints": ["size <= 150M", "score >= parents"]})


def test_methods_that_choose_parents_themselves_may_keep_the_bounds_of_a_subset(
    folder: Path,
) -> None:
    methods = {"slerp": {}, "nearswap": {}, "greedy_soup": {}, "stacking": {"depth": 4}}
    assert load(folder, subset=[1, 2], methods=methods).subset == (1, 2)
    one_segment = {"stacking": {"depth": 4, "segments": 1}}
    assert load(folder, subset=[1, 1], methods=one_segment).subset == (1, 1)


def test_an_omitted_range_is_the_methods_own(folder: Path) -> None:
    methods = load(folder, methods={"ties": None, "slerp": {}}).methods
    assert methods["ties"] == {
        "weight": Range(0.0, 1.5),
        "density": Range(0.1, 1.0),
        "lambda": Range(0.5, 2.0),
    }
    assert methods["slerp"] == {"t": Range(0.0, 1.0)}


@pytest.mark.parametrize(
    ("changes", "learned_of"),
    [
        ({}, "task_arithmetic"),
        ({"subset": [1, 2]}, "task_arithmetic"),
        ({"granularity": {"blocks": 2, "groups": ["mlp"], "smooth": True}}, "task_arithmetic"),
        ({"base": None}, "linear"),
    ],
)
def test_a_space_may_leave_the_methods_to_the_default(
    folder: Path, changes: dict[str, Any], learned_of: str
) -> None:
    written = load(folder, methods={"linear": {}}, **changes)
    data = {k: v for k, v in written.model_dump(exclude_unset=True).items() if k != "methods"}
    space = SearchSpace.model_validate(data)
    assert next(iter(space.methods)) == "learned"  # tried first
    assert space.learned is not None and space.learned.of == learned_of
    assert learned_of in space.domains
    # what a run keeps is what it was searched with, whatever a later default is
    assert space.model_dump(exclude_unset=True)["methods"].keys() == space.methods.keys()


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"passthrough"}))
def test_every_method_is_searched_by_its_name_alone(folder: Path, name: str) -> None:
    parents = {"one": "models/base+models/one"} if METHODS[name].needs_adapters else {}
    space = load(folder, methods={name: {}}, **({"parents": parents} if parents else {}))
    domains = space.domains[name]
    searched = {p.name for p in METHODS[name].parameters if p.search or p.choices}
    assert domains.keys() == searched


@pytest.mark.parametrize("parent", ["models/two", "models/two+models/one"])
def test_a_method_in_core_space_takes_adapters_of_the_base_alone(folder: Path, parent: str) -> None:
    parents = {"one": "models/base+models/one", "two": parent}
    with pytest.raises(InputError, match=r"core_ties merges LoRA adapters of the base .* two is "):
        load(folder, parents=parents, methods={"core_ties": {}})


def test_ranges_whose_extremes_break_a_methods_rule_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"della: density - epsilon .* narrow the ranges"):
        load(folder, methods={"della": {"density": [0.1, 0.8]}})
    load(folder, methods={"della": {"density": [0.3, 0.6], "epsilon": [0.01, 0.25]}})
