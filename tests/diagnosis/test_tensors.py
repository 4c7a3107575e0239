from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from mergesearch.diagnosis.tensors import TensorNumbers, compare_tensor
from mergesearch.methods import Factors
from mergesearch.methods.inputs import Inputs


def compared(deltas: list[Tensor], base: Tensor | None = None) -> TensorNumbers:
    base = torch.full_like(deltas[0], 2.0) if base is None else base
    return compare_tensor(Inputs.of(base, [base + delta for delta in deltas]))


def test_norms_and_angles_are_those_of_the_deltas() -> None:
    numbers = compared([torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[1.0, 0], [0, 0]])])
    assert numbers.base == 16.0  # four entries of 2
    assert numbers.products.tolist() == [[25.0, 3.0], [3.0, 1.0]]


def test_signs_are_compared_where_both_deltas_are_large() -> None:
    # a fifth of ten entries is two; one entry is large in both, with opposite signs
    one = torch.tensor([[9.0, 8, 1, 1, 1, 1, 1, 1, 1, 1]])
    two = torch.tensor([[-9.0, 1, 1, 1, 1, 1, 1, 1, 1, 8]])
    numbers = compared([one, two])
    assert (numbers.shared[0, 1], numbers.opposite[0, 1]) == (1, 1)
    numbers = compared([one, -two])
    assert (numbers.shared[0, 1], numbers.opposite[0, 1]) == (1, 0)


def test_entries_that_stay_have_no_sign() -> None:
    one = torch.zeros(1, 10)
    one[0, 0] = 1.0
    numbers = compared([one, -one], torch.zeros(1, 10))
    assert (numbers.shared[0, 1], numbers.opposite[0, 1]) == (1, 1)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 3, 4)])
def test_spectral_products_are_those_of_the_gram_matrices(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    deltas = [torch.randn(shape, generator=generator) for _ in range(3)]
    found = compared(deltas, torch.zeros(shape)).spectral
    flat = [delta.reshape(-1, shape[-1]).double() for delta in deltas]
    wanted = [[float((a @ b.T).square().sum()) for b in flat] for a in flat]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=0)


def test_factors_say_the_same_as_their_products() -> None:
    generator = torch.Generator().manual_seed(1)
    pairs = [
        (torch.randn(2, 6, generator=generator), torch.randn(4, 2, generator=generator))
        for _ in range(2)
    ]
    factors = tuple(Factors(b=b, a=a) for a, b in pairs)
    inputs = Inputs.of(torch.zeros(4, 6), [b @ a for a, b in pairs])
    known = replace(inputs, find_factors=lambda: factors)
    whole, cheap = compare_tensor(inputs), compare_tensor(known)
    torch.testing.assert_close(whole.spectral, cheap.spectral, rtol=1e-5, atol=0)


def test_deltas_as_small_as_float32_can_tell_have_a_rank() -> None:
    numbers = compared([1e-15 * torch.eye(4)], torch.zeros(4, 4))
    square, own = numbers.products[0, 0], numbers.spectral[0, 0]  # type: ignore[index]
    assert float(square**2 / own) == pytest.approx(4.0)


def test_orthogonal_inputs_do_not_overlap() -> None:
    left, right = torch.zeros(2, 3, 4)
    left[:, 0], right[:, 3] = 1.0, 1.0
    numbers = compared([left, right], torch.zeros(3, 4))
    assert numbers.spectral is not None and numbers.spectral[0, 1] == 0.0


def test_a_vector_has_no_subspace() -> None:
    numbers = compared([torch.ones(3), torch.zeros(3)])
    assert numbers.spectral is None
    for i, j in product(range(2), repeat=2):
        assert numbers.products[i, j] == (3.0 if i == j == 0 else 0.0)
