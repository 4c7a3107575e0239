"""Parameter values by tensor name and depth."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from mergesearch.recipe import Setting, evaluate
from mergesearch.recipe.setting import leaves

ADAPTER: TypeAdapter[Any] = TypeAdapter(Setting)
MLP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


def at(raw: Any, name: str = MLP, depth: float = 0.0) -> Any:
    return evaluate(ADAPTER.validate_python(raw), name, depth)


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_scalar_is_the_same_everywhere(depth: float) -> None:
    assert at(0.5, depth=depth) == 0.5
    assert at(True, depth=depth) is True
    assert at("density", depth=depth) == "density"
    assert at("1e-1", depth=depth) == 0.1


@pytest.mark.parametrize(
    ("depth", "value"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (1.0, 5.0)]
)
def test_a_gradient_is_interpolated_over_depth(depth: float, value: float) -> None:
    assert at([0, 1, 5], depth=depth) == pytest.approx(value)


def test_a_gradient_of_one_value_is_that_value() -> None:
    assert [at([0.7], depth=d) for d in (0.0, 0.5, 1.0)] == [0.7] * 3


def test_a_gradient_of_words_takes_the_nearest_below() -> None:
    assert [at([True, False], depth=d) for d in (0.0, 0.49, 0.99, 1.0)] == [
        True, True, True, False,
    ]  # fmt: skip
    assert at(["density", True, False], depth=0.5) is True


def test_the_first_filter_that_matches_counts() -> None:
    cases = [
        {"filter": "mlp", "value": 1},
        {"filter": "up_proj", "value": 2},
        {"filter": "model", "value": [3, 4]},
    ]
    assert at(cases) == 1
    assert at(cases[1:]) == 2
    assert at(cases, NORM, 0.5) == 3.5
    assert at(cases, "lm_head.weight") is None


@pytest.mark.parametrize("every", [{"value": 9}, {"filter": "*", "value": 9}])
def test_no_filter_and_a_star_match_every_tensor(every: dict[str, Any]) -> None:
    assert at(every, NORM) == 9
    assert at([{"filter": "mlp", "value": 1}, every], NORM) == 9


def test_leaves_are_all_the_scalars() -> None:
    raw = [{"filter": "mlp", "value": [1, 2]}, {"value": 3}]
    assert list(leaves(ADAPTER.validate_python(raw))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "a parameter takes a value"),
        (None, "a parameter takes a value"),
        ([1, [2]], "must not hold lists"),
        ([1, {"value": 2}], "either values or value/filter pairs"),
        ([{"value": [{"value": 1}]}], "valid"),
        ({"filter": "mlp"}, "value"),
        ({"value": 1, "filtre": "mlp"}, "unknown key 'filtre'; did you mean 'filter'"),
        (float("nan"), "must be finite, got nan"),
        ("-inf", "must be finite, got -inf"),
        ([0.5, "nan"], "must be finite, got nan"),
        (10**400, "must be finite"),
        ("1e999", "must be finite, got inf"),
    ],
)
def test_what_is_no_setting_is_refused(raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ADAPTER.validate_python(raw)
