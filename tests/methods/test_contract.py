"""What every row of the method table must hold, whatever the tensors and the parameters."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.methods import METHODS
from mergesearch.methods.executor import Executor
from tests.methods.cases import Case, cases, having

every_method = pytest.mark.parametrize("name", METHODS)
# One model beside the base, or none: there is nothing to permute.
ONE_MODEL = {"slerp", "crossover", "nearswap", "arcee_fusion", "passthrough"}
# LAPACK splits a decomposition among threads; merging gives each tensor one thread.
BY_SVD = {"tsv_m", "iso_c", "iso_cts"}
FILLED = [(1,), (5,), (1, 7), (7, 1), (3, 5), (2, 3, 4), (33, 31)]


def some(max_examples: int) -> settings:
    return settings(max_examples=max_examples, deadline=None)


@pytest.fixture(scope="module")
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def close(actual: Tensor, expected: Tensor, *, within: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=within, atol=within)


@every_method
@some(15)
@given(data=st.data())
def test_shape_is_kept_the_result_is_float32_and_the_inputs_are_unmodified(
    name: str, data: st.DataObject
) -> None:
    case = data.draw(cases(name))
    before = [tensor.clone() for tensor in case.inputs]
    merged = case.merged()
    assert merged.shape == case.models[0].shape
    assert merged.dtype == torch.float32
    merged.add_(1)  # were the result an input, it would change here
    for tensor, copy in zip(case.inputs, before, strict=True):
        assert torch.equal(tensor, copy)


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@some(10)
@given(data=st.data())
def test_models_of_another_dtype_are_merged_in_float32(
    name: str, dtype: torch.dtype, data: st.DataObject
) -> None:
    half = data.draw(cases(name)).mapped(lambda tensor: tensor.to(dtype))
    assert torch.equal(half.merged(), half.mapped(lambda tensor: tensor.float()).merged())


@every_method
@some(15)
@given(data=st.data())
def test_the_bits_depend_on_no_generator_and_on_no_block_size(
    name: str, data: st.DataObject
) -> None:
    case = data.draw(cases(name))
    state = torch.get_rng_state()
    merged = case.merged()
    assert torch.equal(torch.get_rng_state(), state)
    for block in (1, 7, 64):
        assert torch.equal(
            case.merged(executor=Executor(block=block, heavy_block=block)), merged
        ), block


@pytest.mark.parametrize("name", [name for name in METHODS if name not in BY_SVD])
@pytest.mark.parametrize("shape", [(191, 177), (40_001,)])  # above 32,768
@settings(max_examples=2, deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_the_bits_do_not_depend_on_the_number_of_threads(
    name: str, shape: tuple[int, ...], threads: None, data: st.DataObject
) -> None:
    case = data.draw(cases(name, [shape], grid=False))
    results = []
    for n in (1, 2):
        torch.set_num_threads(n)
        results.append(case.merged())
    assert torch.equal(*results)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.random])
@some(5)
@given(data=st.data())
def test_other_keys_give_another_result(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name, [(33, 31)])).having(lambda_=1.0)
    case = case.having(weight=[1.0] * len(case.models), density=[0.5] * len(case.models))
    assert case.keys is not None
    other = replace(case, keys=case.keys + 1)
    assert not torch.equal(case.merged(), other.merged())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ONE_MODEL])
@some(15)
@given(data=st.data())
def test_permuting_models_with_their_parameters_and_keys_changes_nothing(
    name: str, data: st.DataObject
) -> None:
    # on a grid, sums of zero are rounded to either sign, of which one is elected
    # and where there is but one dimension, the mean of opposite directions is anyone's
    case = data.draw(cases(name, [shape for shape in FILLED if shape != (1,)], grid=False))
    order = data.draw(st.permutations(range(len(case.models))))
    close(case.permuted(order).merged(), case.merged(), within=1e-3 if name in BY_SVD else 1e-4)


def test_the_methods_that_are_not_permuted_take_one_model() -> None:
    assert {name for name, method in METHODS.items() if method.n_models[1] == 1} == ONE_MODEL


@every_method
@some(10)
@given(data=st.data(), bad=st.sampled_from([math.nan, -math.nan, math.inf]))
def test_a_nan_or_infinity_is_never_hidden(name: str, data: st.DataObject, bad: float) -> None:
    case = data.draw(cases(name, FILLED))
    if case.method.random or "gamma" in case.arguments:
        # an entry that is dropped counts in the norm that is restored, if anything else is left
        case = data.draw(cases(name, [(3, 5), (33, 31)]))
        case = case.having(rescale=True, density=[0.8] * len(case.models))
    if bad == math.inf:  # the largest of all: what breadcrumbs is there to drop
        case = case.having(gamma=[0.0] * len(case.models))
    broken = data.draw(st.integers(0, len(case.inputs) - 1))
    place = data.draw(st.integers(0, case.models[0].numel() - 1))
    tensor = case.inputs[broken]
    tensor.view(-1)[place] = bad
    assert not torch.isfinite(case.merged()).all()


@pytest.mark.parametrize("name", [n for n in having("weight") if METHODS[n].base == "required"])
@some(15)
@given(data=st.data())
def test_weights_of_zero_give_the_base(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    assert case.base is not None
    assert torch.equal(case.having(weight=[0.0] * len(case.models)).merged(), case.base)


@pytest.mark.parametrize("name", [n for n in having("weight") if n != "nuslerp"])  # two models
@some(15)
@given(data=st.data())
def test_a_model_of_weight_zero_might_as_well_be_absent(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name, grid=False, n=2))
    case = case.having(weight=[data.draw(st.sampled_from([0.25, 0.7, 1.0])), 0.0])
    if name == "multislerp":  # which has a model alone be what it is
        case = case.having(normalize_weights=True)
    close(case.merged(), case.permuted([0]).merged())


@pytest.mark.parametrize("name", having("lambda"))
@some(15)
@given(data=st.data())
def test_a_lambda_of_zero_gives_the_base(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name)).having(lambda_=0.0)
    assert case.base is not None
    assert torch.equal(case.merged(), case.base)


@pytest.mark.parametrize("name", having("density"))
@some(15)
@given(data=st.data())
def test_a_density_of_one_is_the_method_without_trimming(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    case = case.having(density=[1.0] * len(case.models), normalize=data.draw(st.booleans()))
    if name in ("dare_linear", "della_linear", "breadcrumbs"):
        wanted = ("weight", "lambda_", "normalize")
        plain = replace(
            case,
            name="task_arithmetic",
            arguments={k: v for k, v in case.arguments.items() if k in wanted},
        )
        assert torch.equal(case.merged(), plain.merged())
    else:
        close(case.merged(), election(case))


def election(case: Case) -> Tensor:
    """TIES without its trim, entry by entry as the paper has it."""
    assert case.base is not None
    weights = case.arguments["weight"]
    merged = []
    for origin, *entries in zip(
        case.base.flatten(), *[model.flatten() for model in case.models], strict=True
    ):
        parts = [weight * (entry - origin) for weight, entry in zip(weights, entries, strict=True)]
        positive = sum(parts, start=torch.tensor(0.0)) >= 0
        agreeing = [i for i, part in enumerate(parts) if (part > 0 if positive else part < 0)]
        delta = sum((parts[i] for i in agreeing), start=torch.tensor(0.0))
        divisor = sum(weights[i] for i in agreeing) if case.arguments["normalize"] else 1.0
        merged.append(origin + case.arguments["lambda_"] * delta / (divisor or 1.0))
    return stacked(merged, case.base)


def stacked(entries: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(entries)).view_as(like) if entries else torch.empty_like(like)
