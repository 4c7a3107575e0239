"""What every row of the method table must hold, whatever the shape of the tensors."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.methods import METHODS, REQUIRED, Method, Parameter

SYMMETRIC = sorted(name for name, method in METHODS.items() if method.n_models[1] > 1)
SHAPES = st.sampled_from(
    [(), (1,), (5,), (1, 7), (7, 1), (1, 1), (3, 5), (2, 3, 4), (0,), (0, 3), (33, 31)]
)
every_method = pytest.mark.parametrize("name", METHODS)


def n_models_of(method: Method) -> int:
    return int(min(3, method.n_models[1]))


def tensors(shape: Sequence[int], n: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """A base and n relatives of it."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    return base, [base + 0.3 * torch.randn(shape, generator=generator) for _ in range(n)]


def value(parameter: Parameter, index: int) -> Any:
    """A value that the parameter may take: its default, or one inside its search range."""
    if parameter.search is None:
        return None if parameter.default is REQUIRED else parameter.default
    low, high = parameter.search
    return low + (high - low) * (0.35 + 0.2 * index)


def merge(
    method: Method,
    base: Tensor,
    models: Sequence[Tensor],
    *,
    seed: int = 0,
    order: Sequence[int] | None = None,
    **changes: Any,
) -> Tensor:
    """Run a method; `order` permutes models, their parameters and their random numbers together."""
    order = list(order or range(len(models)))
    arguments = {
        p.argument: [value(p, i) for i in order] if p.per_model else value(p, 0)
        for p in method.parameters
    }
    if method.base == "required":
        arguments["base"] = base
    if method.random:
        arguments["generators"] = [torch.Generator().manual_seed(seed * 100 + i) for i in order]
    return method.merge(models=[models[i] for i in order], **{**arguments, **changes})


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@every_method
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_identical_parents_give_that_parent_back(
    name: str, shape: tuple[int, ...], seed: int
) -> None:
    method = METHODS[name]
    base, _ = tensors(shape, 0, seed)
    merged = merge(method, base, [base.clone() for _ in range(n_models_of(method))], seed=seed)
    torch.testing.assert_close(merged, base, rtol=1e-6, atol=1e-6)


@every_method
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_shape_and_dtype_are_kept_and_inputs_unmodified(
    name: str, shape: tuple[int, ...], seed: int
) -> None:
    method = METHODS[name]
    base, models = tensors(shape, n_models_of(method), seed)
    before = [tensor.clone() for tensor in (base, *models)]
    merged = merge(method, base, models)
    assert merged.shape == base.shape
    assert merged.dtype == torch.float32
    merged.add_(1)  # were the result an input, it would change here
    for tensor, copy in zip((base, *models), before, strict=True):
        assert torch.equal(tensor, copy)


@every_method
def test_same_seed_same_bits_and_global_state_untouched(name: str) -> None:
    method = METHODS[name]
    base, models = tensors((40, 30), n_models_of(method))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = merge(method, base, models)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first, merge(method, base, models))


@pytest.mark.parametrize("name", sorted(n for n, method in METHODS.items() if method.random))
def test_another_seed_gives_another_result(name: str) -> None:
    method = METHODS[name]
    base, models = tensors((40, 30), n_models_of(method))
    assert not torch.equal(merge(method, base, models, seed=1), merge(method, base, models, seed=2))


@every_method
def test_the_bits_do_not_depend_on_the_number_of_threads(name: str, threads: None) -> None:
    method = METHODS[name]
    base, models = tensors((331, 317), n_models_of(method))  # 104,927 entries
    torch.set_num_threads(1)
    one = merge(method, base, models)
    torch.set_num_threads(2)
    assert torch.equal(one, merge(method, base, models))


@pytest.mark.parametrize("name", SYMMETRIC)
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, order=st.permutations(range(3)), seed=st.integers(0, 99))
def test_permuting_parents_with_their_parameters_changes_nothing(
    name: str, shape: tuple[int, ...], order: list[int], seed: int
) -> None:
    method = METHODS[name]
    base, models = tensors(shape, 3, seed)
    straight = merge(method, base, models)
    permuted = merge(method, base, models, order=order)
    torch.testing.assert_close(permuted, straight, rtol=1e-5, atol=1e-5)


def test_slerp_is_symmetric_about_the_middle() -> None:
    a, b = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(3)).unbind()
    slerp = METHODS["slerp"].merge
    torch.testing.assert_close(slerp(a, [b], t=0.3), slerp(b, [a], t=0.7))


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.parameter("density")])
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_density_one_drops_nothing(name: str, shape: tuple[int, ...], seed: int) -> None:
    base, (model,) = tensors(shape, 1, seed)
    merged = merge(METHODS[name], base, [model], density=[1.0], weight=[1.0])
    torch.testing.assert_close(merged, model, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.parameter("weight")])
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99))
def test_weight_zero_is_the_absence_of_the_model(
    name: str, shape: tuple[int, ...], seed: int
) -> None:
    method = METHODS[name]
    base, models = tensors(shape, 2, seed)
    if method.base == "required":
        assert torch.equal(merge(method, base, models, weight=[0.0, 0.0]), base)
    both = merge(method, base, models, weight=[0.7, 0.0])
    alone = merge(method, base, models[:1], weight=[0.7])
    torch.testing.assert_close(both, alone, rtol=1e-6, atol=1e-6)


@every_method
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nan_or_infinity_is_never_hidden(name: str, bad: float) -> None:
    method = METHODS[name]
    base, models = tensors((6, 5), n_models_of(method))
    models[0][2, 3] = bad
    for density in (0.2, 1.0):
        has_density = method.parameter("density") is not None
        changes: dict[str, Any] = {"density": [density] * len(models)} if has_density else {}
        assert not torch.isfinite(merge(method, base, models, **changes)).all()


@every_method
def test_the_row_names_the_arguments_of_its_function(name: str) -> None:
    method = METHODS[name]
    base, models = tensors((2, 2), n_models_of(method))
    for parameter in method.parameters:
        assert method.parameter(parameter.name) is parameter
        if parameter.default not in (REQUIRED, None):
            assert parameter.check(parameter.default) == parameter.default
        if parameter.search:
            assert [parameter.check(bound) for bound in parameter.search] == list(parameter.search)
    assert method.parameter("no such") is None
    assert method.paper.startswith(("arXiv:", "doi:"))
    assert (method.merge.__doc__ or "").strip()
    merge(method, base, models)
