"""Task vectors of low rank: by their factors a method gives what it gives by whole matrices."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mergesearch.methods import METHODS, Factors, Inputs, apply
from mergesearch.methods.factors import CoreSpace, factorised

ROWS, COLUMNS = 48, 40


def adapters(*ranks: int, seed: int = 0) -> tuple[Factors, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        Factors(
            torch.randn(ROWS, r, generator=generator), torch.randn(r, COLUMNS, generator=generator)
        )
        for r in ranks
    )


def inputs_of(factors: tuple[Factors, ...], *, known: bool) -> Inputs:
    base = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(9))
    models = [base + part.b @ part.a for part in factors]
    return Inputs.of(base, models, find_factors=lambda: factors if known else None)


def merged(name: str, inputs: Inputs, **arguments: Any) -> Tensor:
    formula = METHODS[name].formula(inputs, **arguments)
    return torch.cat([value for _, value in inputs.values(formula)])


@pytest.mark.parametrize("ranks", [(4, 4, 4), (1, 6), (3, 0, 5), (40, 40), (0, 0)])
@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "iso_cts", "wudi", "bmm"])
@pytest.mark.parametrize("transposed", [False, True])
def test_factors_give_what_the_dense_matrices_give(
    name: str, ranks: tuple[int, ...], *, transposed: bool
) -> None:
    """Of any rank, up to more than the layer has directions, or none."""
    given = {"weight": [0.5, 2.0, 1.0][: len(ranks)], "anchor": 0.7} if name == "bmm" else {}
    factors = adapters(*ranks)
    dense, by_factors = (
        merged(
            name, replace(inputs_of(factors, known=k), find_transposed=lambda: transposed), **given
        )
        for k in (False, True)
    )
    torch.testing.assert_close(by_factors, dense, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["tsv_m", "wudi"])
def test_no_model_is_read_where_its_factors_are_known(name: str) -> None:
    class Unread(list[Tensor]):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("a model was read")

    inputs = inputs_of(adapters(2, 2), known=True)
    unread = Inputs(inputs.base, Unread(inputs.models), find_factors=inputs.find_factors)
    assert torch.equal(merged(name, unread), merged(name, inputs))


def test_the_factors_of_one_model_are_left_where_the_others_are_left_out() -> None:
    factors = adapters(2, 3)
    only = inputs_of(factors, known=True).only(1)
    assert only.factors == factors[1:]
    assert inputs_of(factors, known=False).only(1).factors is None


def test_a_core_space_has_orthonormal_bases_and_loses_nothing() -> None:
    factors = adapters(3, 5)
    space = CoreSpace.of(factors)
    for basis in (space.left, space.right):
        torch.testing.assert_close(basis.T @ basis, torch.eye(8, dtype=torch.float64))
    for part, core in zip(factors, space.cores, strict=True):
        assert core.shape == (8, 8)
        torch.testing.assert_close(space.outside(core), part.b @ part.a, rtol=1e-5, atol=1e-5)


def test_a_core_space_is_no_larger_than_the_layer() -> None:
    space = CoreSpace.of(adapters(40, 40))
    assert space.cores[0].shape == (40 + 8, 40)  # 48 rows, of 80 ranks


def test_the_factors_of_any_matrix_are_its_singular_vectors() -> None:
    delta = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    factors = factorised(delta)
    torch.testing.assert_close(factors.b @ factors.a, delta)
    torch.testing.assert_close(factors.b.T @ factors.b, factors.a @ factors.a.T)


@pytest.mark.parametrize("name", ["tsv_m", "iso_c"])
def test_core_space_gives_what_the_method_gives_on_the_whole_space(name: str) -> None:
    """Of adapters of one rank: bases with orthonormal columns change no singular value."""
    factors = adapters(4, 4, 4)
    whole = merged(name, inputs_of(factors, known=False), lambda_=0.7)
    core = merged(f"core_{name}", inputs_of(factors, known=True), lambda_=0.7)
    torch.testing.assert_close(core, whole, rtol=1e-3, atol=1e-3)


def test_core_ties_is_ties_of_the_cores_in_their_bases() -> None:
    factors = adapters(3, 3)
    inputs = inputs_of(factors, known=True)
    space = CoreSpace.of(factors)
    zeros = torch.zeros(6, 6)
    core = apply(METHODS["ties"], zeros, space.cores, weight=[1.0, 1.0], density=[0.5, 0.2])
    assert inputs.base is not None
    expected = inputs.base + 0.3 * space.outside(core)
    found = merged("core_ties", inputs, density=[0.5, 0.2], lambda_=0.3)
    torch.testing.assert_close(found, expected)


def test_core_ties_by_hand() -> None:
    """T_1 = [[2, 0], [0, 0]] and T_2 = [[0, 0], [1, 0]]: nothing is in two, so both are added."""
    one = Factors(torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0, 0.0]]))
    two = Factors(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0, 0.0]]))
    base = torch.ones(2, 2)
    inputs = Inputs.of(base, [base, base], find_factors=lambda: (one, two))
    found = merged("core_ties", inputs, density=[1.0, 1.0])
    torch.testing.assert_close(found, torch.tensor([[3.0, 1.0], [2.0, 1.0]]))


def test_adapters_whose_bases_are_the_same_disagree_in_the_core_as_in_the_whole() -> None:
    """T_1 = b a and T_2 = -b a / 2: the larger is elected."""
    b, a = torch.tensor([[3.0], [4.0]]), torch.tensor([[0.0, 2.0]])
    factors = (Factors(b, a), Factors(-b / 2, a))
    base = torch.zeros(2, 2)
    inputs = Inputs.of(base, [base, base], find_factors=lambda: factors)
    torch.testing.assert_close(merged("core_ties", inputs, density=[1.0, 1.0]), b @ a)
