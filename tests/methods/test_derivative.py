"""Derivatives by hand: what the contract's finite differences cannot say."""

import pytest
import torch
from torch import Tensor, nn

from mergesearch.methods import METHODS, Inputs
from mergesearch.methods.derivative import combination, pull_back, pull_back_combination

BASE = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
ONE = torch.tensor([[2.0, -2.0], [1.0, 0.0]])  # deltas 1, 0, 1, -3
TWO = torch.tensor([[0.0, 1.0], [2.0, 3.0]])  # deltas -1, 3, 2, 0
GRADIENT = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def of(method: str, gradient: Tensor = GRADIENT, **arguments: object) -> dict[str, list[float]]:
    row = METHODS[method]
    inputs = Inputs.of(BASE if row.base == "required" else None, [ONE, TWO], name="x")
    given = row.arguments(2, arguments)
    return {k: v.tolist() for k, v in pull_back(row, inputs, given, gradient).items()}


def test_of_task_arithmetic_it_is_the_product_with_the_delta() -> None:
    found = of("task_arithmetic", weight=[0.5, 0.25], lambda_=2.0)
    # lambda <G, T_i>, and <G, sum w_i T_i>
    assert found["weight"] == [2 * (1 + 3 - 12), 2 * (-1 + 6 + 6)]
    assert found["lambda_"] == pytest.approx(0.5 * -8 + 0.25 * 11)


def test_of_ties_only_what_agrees_counts() -> None:
    found = of("ties", weight=[0.5, 0.25], density=[1.0, 1.0], normalize=False, lambda_=1.0)
    # elected signs are +, +, +, -: the first keeps 1, 1, -3, the second 3, 2
    assert found["weight"] == pytest.approx([1 + 3 - 12, 6 + 6])


def test_of_a_normalized_mean_a_common_factor_changes_nothing() -> None:
    found = of("linear", weight=[0.5, 0.25])
    assert 0.5 * found["weight"][0] + 0.25 * found["weight"][1] == pytest.approx(0, abs=1e-6)


def test_it_may_be_taken_within_a_backward_pass() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    found: list[dict[str, list[float]]] = []
    weight.register_post_accumulate_grad_hook(
        lambda p: found.append(of("task_arithmetic", p.grad, weight=[1.0, 1.0]))
    )
    (weight * GRADIENT).sum().backward()
    assert found[0]["weight"] == [-8, 11]
    with torch.no_grad():
        assert of("task_arithmetic", weight=[1.0, 1.0])["weight"] == [-8, 11]


def test_a_method_without_such_numbers_refuses() -> None:
    row = METHODS["karcher"]
    assert row.differentiable == ()
    with pytest.raises(ValueError, match="none of the method's is: max_iter, tol"):
        pull_back(row, Inputs.of(None, [ONE, TWO]), row.arguments(2, {}), GRADIENT)


def test_a_copy_has_no_scale_to_differentiate() -> None:
    row = METHODS["passthrough"]
    inputs = Inputs.of(None, [ONE])
    assert pull_back(row, inputs, {"scale": [None]}, GRADIENT) == {}
    assert pull_back(row, inputs, {"scale": [0.5]}, GRADIENT)["scale"].tolist() == [2 - 4 + 3]


def test_coefficients_of_a_combination() -> None:
    row = METHODS["task_arithmetic"]
    given = row.arguments(2, {"weight": [0.5, 0.25], "lambda_": 2.0})
    assert combination(row, 2, given).tolist() == [1 - 1.5, 1.0, 0.5]
    found = pull_back_combination(row, 2, given, torch.tensor([3.0, 4.0]))
    assert found["weight"].tolist() == [6, 8]
    assert float(found["lambda_"]) == pytest.approx(3 * 0.5 + 4 * 0.25)


def test_only_combinations_have_coefficients() -> None:
    row = METHODS["ties"]
    with pytest.raises(ValueError, match="must be a combination"):
        combination(row, 2, row.arguments(2, {"weight": [1.0, 1.0]}))
