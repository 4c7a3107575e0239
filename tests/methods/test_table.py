"""The rows of the method table: their ranges, defaults and arguments."""

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from mergesearch.errors import InputError
from mergesearch.methods import METHODS, REQUIRED, Method, Parameter, Scalar, Sparsified, apply
from mergesearch.methods.ties import TOP_K

every_method = pytest.mark.parametrize("name", METHODS)


@every_method
def test_the_bounds_of_a_search_and_the_default_are_values_that_the_parameter_may_take(
    name: str,
) -> None:
    for parameter in METHODS[name].parameters:
        assert METHODS[name].parameter(parameter.name) is parameter
        if parameter.search:
            assert [parameter.check(bound) for bound in parameter.search] == list(parameter.search)
        if parameter.default not in (REQUIRED, None):
            assert parameter.check(parameter.default) == parameter.default
    assert METHODS[name].parameter("no such") is None
    assert METHODS[name].source.startswith(("arXiv:", "doi:", "mergekit"))


@every_method
def test_the_corners_of_the_search_ranges_make_finite_merges_that_the_method_allows(
    name: str,
) -> None:
    method = METHODS[name]
    n = max(int(method.n_models[0]), int(min(2, method.n_models[1])))
    base, *models = torch.randn(n + 1, 6, 5, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(2 * n, dtype=torch.int32).view(n, 2) if method.random else None
    searched = [p for p in method.parameters if p.search and p.name != "weight"]
    for corner in itertools.product(*[p.search for p in searched if p.search]):
        arguments: dict[str, Any] = {}
        for parameter in method.parameters:
            value: Any = parameter.default
            if parameter in searched:
                value = corner[searched.index(parameter)]
            elif parameter.name == "weight":
                value = 1.0
            assert value is not REQUIRED
            arguments[parameter.argument] = [value] * n if parameter.per_model else value
        method.check(arguments)
        merged = apply(
            method, None if method.base == "unused" else base, models, keys=keys, **arguments
        )
        assert torch.isfinite(merged).all(), arguments


@pytest.mark.parametrize("name", ["linear", "multislerp"])
def test_normalized_weights_that_sum_to_zero_are_refused(name: str) -> None:
    flag = "normalize" if name == "linear" else "normalize_weights"
    with pytest.raises(ValueError, match=rf"must not sum to zero, got \[1, -1\].*set {flag}: fal"):
        METHODS[name].check({"weight": [1, -1], flag: True})
    METHODS[name].check({"weight": [1, -1], flag: False})


@pytest.mark.parametrize("name", ["della", "della_linear"])
@pytest.mark.parametrize(("density", "epsilon"), [(0.2, 0.2), (0.9, 0.1), (0.1, 0.3), (0.95, 0.2)])
def test_della_refuses_keep_probabilities_outside_of_zero_to_one(
    name: str, density: float, epsilon: float
) -> None:
    with pytest.raises(ValueError, match=f"got density {density:g} and epsilon {epsilon:g}"):
        METHODS[name].check({"density": [0.5, density], "epsilon": [0.1, epsilon]})
    METHODS[name].check({"density": [1.0], "epsilon": [epsilon]})  # all is kept


def test_a_parameter_refuses_what_is_out_of_range_and_says_the_rule() -> None:
    density = METHODS["ties"].parameter("density")
    assert density is not None
    assert density.check(1) == 1.0
    assert density.check("0.5") == 0.5
    refused: list[tuple[Scalar, str]] = [
        (0, r"density must be in \(0, 1\], got 0"),
        (-0.1, r"in \(0, 1\], got -0.1"),
        (1.5, r"in \(0, 1\], got 1.5"),
        (math.nan, "must be finite, got nan"),
        (math.inf, "must be finite, got inf"),
        ("nan", "must be finite"),
        (10**400, "must be a number, got 1000"),
        ("much", "must be a number, got 'much'"),
        (True, "must be a number, got True"),
    ]
    for value, rule in refused:
        with pytest.raises(ValueError, match=rule):
            density.check(value)


def test_a_count_is_a_whole_number() -> None:
    max_iter = METHODS["karcher"].parameter("max_iter")
    assert max_iter is not None
    assert isinstance(max_iter.check(3.0), int)
    with pytest.raises(ValueError, match=r"max_iter must be a whole number, got 2\.5"):
        max_iter.check(2.5)


def test_a_switch_takes_true_or_false_or_its_words() -> None:
    rescale = METHODS["dare_ties"].parameter("rescale")
    normalize = METHODS["linear"].parameter("normalize")
    assert rescale is not None
    assert normalize is not None
    assert rescale.check("density") == "density"
    assert rescale.check(False) is False
    with pytest.raises(ValueError, match="rescale must be true or false or 'density', got 1"):
        rescale.check(1)
    with pytest.raises(ValueError, match="normalize must be true or false, got 'density'"):
        normalize.check("density")


def test_an_interval_is_written_as_mathematics_does() -> None:
    assert Parameter("x", low=0, high=1).interval == "[0, 1]"
    assert Parameter("x", above=0, high=1).interval == "(0, 1]"
    assert Parameter("x", above=0).interval == "(0, inf)"


def test_a_parameter_named_as_a_keyword_has_an_argument_of_another_name() -> None:
    assert Parameter("lambda").argument == "lambda_"
    assert Parameter("weight").argument == "weight"


def test_a_table_a_recipe_and_a_space_are_read_without_torch_and_numpy() -> None:
    rooms = "mergesearch.methods, mergesearch.recipe, mergesearch.space"
    code = f"import sys, {rooms}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy"} & set(done.stdout.split())


@every_method
def test_a_row_names_its_formula_which_is_imported_once(name: str) -> None:
    assert callable(METHODS[name].formula)
    assert METHODS[name].formula is METHODS[name].formula


def test_the_arguments_left_out_are_the_defaults_of_the_table() -> None:
    given = {"weight": [1.0, 0.5], "lambda_": 2.0}
    assert METHODS["ties"].arguments(2, given) == {
        **given, "density": [1.0, 1.0], "normalize": True, "rescale": False,
    }  # fmt: skip


def halfway(inputs: Any) -> Any:
    return inputs


def test_a_row_has_its_function_or_says_where_it_is() -> None:
    for function in (halfway, f"{__name__}:halfway"):
        row = Method(function, (), base="required", source="mergekit")
        assert row.formula is halfway


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (f"{__name__}:nowhere", "AttributeError: module 'tests.methods.test_table' has no"),
        ("no_such_package:f", "ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_a_function_that_is_nowhere_is_said_in_one_line(function: str, reason: str) -> None:
    row = Method(function, (), base="required", source="mergekit")
    with pytest.raises(InputError, match=rf"'{function}' cannot be imported: {reason}.*; mend the"):
        _ = row.formula


def test_a_function_is_named_with_its_module() -> None:
    with pytest.raises(ValueError, match="must be a function or 'module:function', got 'ties'"):
        Method("ties", (), base="required", source="mergekit")


def test_the_sparsified_rows_are_four_rules_with_and_without_elected_signs() -> None:
    rows = {name: row.function for name, row in METHODS.items()}
    columns = {
        name: (function.keep, function.elect)
        for name, function in rows.items()
        if isinstance(function, Sparsified)
    }
    assert columns == {
        "ties": (".ties:TOP_K", True),
        "dare_linear": (".dare:DARE", False),
        "dare_ties": (".dare:DARE", True),
        "della": (".della:DELLA", True),
        "della_linear": (".della:DELLA", False),
        "breadcrumbs": (".breadcrumbs:BREADCRUMBS", False),
        "breadcrumbs_ties": (".breadcrumbs:BREADCRUMBS", True),
    }


def test_a_rule_may_be_given_as_it_is_and_merged_in_the_other_way() -> None:
    """The eight largest of sixteen deltas, added with the weights 1 and 2."""
    ties = METHODS["ties"]
    row = Method(
        Sparsified(TOP_K, elect=False), ties.parameters, base="required", source="mergekit"
    )
    base, one, two = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    merged = apply(row, base, [one, two], weight=[1.0, 2.0], density=[0.5, 0.5], normalize=False)
    expected = base.clone()
    for weight, model in ((1.0, one), (2.0, two)):
        delta = model - base
        expected += weight * torch.where(delta.abs() >= delta.abs().flatten().topk(8).values[-1],
                                         delta, 0.0)  # fmt: skip
    torch.testing.assert_close(merged, expected)
