"""Products by oneDNN are those of `torch.nn.functional.linear`, and so are their derivatives."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mergesearch import products
from mergesearch.products import linear, quicken

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which MKL is slow, whatever this one is, and products of any size pay."""
    monkeypatch.setattr(products, "has_slow_products", lambda: True)
    monkeypatch.setattr(products, "_LEAST", 1)


INPUTS = {
    "rows": randn(7, 12),
    "one row": randn(1, 12),
    "no row": randn(0, 12),
    "a batch": randn(2, 3, 12),
    "turned": randn(12, 5).T,
    "strided": randn(8, 24)[::2, ::2],
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_and_its_derivatives_are_torchs(slow: None, name: str, *, biased: bool) -> None:
    found, expected = (
        [
            INPUTS[name].clone().requires_grad_(),
            randn(9, 12, seed=1).requires_grad_(),
            *([randn(9, seed=2).requires_grad_()] if biased else []),
        ]
        for _ in range(2)
    )
    y, wanted = linear(*found), functional.linear(*expected)
    torch.testing.assert_close(y, wanted)
    for value in (y, wanted):
        (value * randn(*value.shape, seed=3)).sum().backward()
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_derivative_that_nobody_asks_for_is_not_computed(slow: None) -> None:
    x, weight = randn(4, 12).requires_grad_(), randn(9, 12, seed=1)
    y = linear(x, weight)
    kept = y.grad_fn.saved_tensors  # type: ignore[union-attr]
    assert kept[0] is None  # what only the weight's derivative would need
    y.sum().backward()
    assert weight.grad is None and x.grad is not None


class Doubled(nn.Linear):
    """A layer with a forward of its own, which stays."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_plain_layers_are_quickened_and_given_back(slow: None, monkeypatch: Any) -> None:
    called = []
    product = products._product

    def noted(*of: Any) -> Tensor:
        called.append(of)
        return product(*of)

    monkeypatch.setattr(products, "_product", noted)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 9), nn.GELU(), Doubled(9, 9), nn.Linear(9, 3).double())
    first, x = model[:3], randn(4, 12)
    before = first(x)
    undo = quicken(model)
    torch.testing.assert_close(first(x), before)
    assert len(called) == 1
    model[3](randn(2, 9).double())  # float64 stays with torch
    quicken(model)()  # a second time changes nothing, and gives nothing back
    first(x)
    assert len(called) == 2
    undo()
    assert torch.equal(first(x), before)
    assert len(called) == 2
    assert "forward" not in vars(model[0])


def test_a_recomputed_layer_has_its_derivatives(slow: None) -> None:
    layer, x = nn.Linear(12, 9), randn(4, 12).requires_grad_()
    layer(x).square().sum().backward()
    expected, x.grad = x.grad, None
    undo = quicken(layer)
    checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    undo()
    torch.testing.assert_close(x.grad, expected)


def test_other_processors_keep_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_slow_products", lambda: False)
    monkeypatch.setattr(products, "_product", None)
    layer, x = nn.Linear(12, 9), randn(4, 12)
    quicken(layer)
    assert "forward" not in vars(layer)
    assert torch.equal(linear(x, layer.weight, layer.bias), layer(x))
