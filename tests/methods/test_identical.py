"""What each method makes of n models that are one and the same: that model, or its closed form."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.methods import METHODS
from mergesearch.testing import Case
from mergesearch.testing.cases import Arguments
from tests.methods.cases import cases
from tests.methods.test_contract import FACTOR


def _sum(arguments: Arguments) -> float:
    return float(sum(arguments["weight"]))


def _added(a: Arguments) -> float:
    """Task vectors add up, unless the sum of weights divides them."""
    return a["lambda_"] * (1.0 if a["normalize"] and _sum(a) else _sum(a))


def _scaled(a: Arguments) -> float:
    return a["lambda_"]


def _whole(a: Arguments) -> float:
    return 1.0


# Apart from the base, at density 1: W0 + this times T.
SHARE: dict[str, Callable[[Arguments], float]] = {
    "task_arithmetic": _added,
    "ties": _added,
    "dare_linear": _added,
    "dare_ties": _added,
    "della": _added,
    "della_linear": _added,
    "breadcrumbs": _added,
    "breadcrumbs_ties": _added,
    # nothing varies, so that below 1 nothing is selected
    "sce": lambda a: float(a["select_topk"] == 1),
    "model_stock": _whole,  # all cosines are 1, and so is t
    "ram": _whole,
    "ramplus_tl": _whole,  # all changes are shared
    "magmax": _scaled,
    "pcb": _scaled,
    "localize_and_stitch": _scaled,
    "nuslerp": _whole,
    "multislerp": FACTOR["multislerp"],
}


@pytest.mark.parametrize("name", SHARE)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_identical_models_apart_from_the_base_give_a_multiple_of_their_task_vector(
    name: str, data: st.DataObject
) -> None:
    case = alike(data.draw(cases(name)))
    case = case.having(density=[1.0] * len(case.models))
    origin = torch.zeros_like(case.models[0]) if case.base is None else case.base
    share = SHARE[name](case.arguments)
    expected = origin + share * (case.models[0] - origin)
    torch.testing.assert_close(case.merged(), expected, rtol=1e-5, atol=1e-5)


def test_the_table_has_every_method_of_several_models_and_a_base_but_some() -> None:
    several = {
        name for name, m in METHODS.items() if m.base in ("required", "optional")
        and m.n_models[1] > 1
    }  # fmt: skip
    by_svd = {name for name in several if METHODS[name].whole == "matrices"}
    assert set(SHARE) == several - by_svd - {"consensus_ta"}  # whose masks agree or do not


MATRICES = [(1, 7), (7, 1), (3, 5), (12, 9), (33, 31)]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_tsv_m_gives_the_strongest_directions_of_identical_models(data: st.DataObject) -> None:
    case = alike(data.draw(cases("tsv_m", MATRICES, grid=False)))
    left, values, right = torch.linalg.svd(delta_of(case), full_matrices=False)
    r = max(1, len(values) // len(case.models))
    assert_direction(case, (left[:, :r] * values[:r]) @ right[:r])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_iso_c_gives_identical_models_directions_the_mean_of_n_times_their_singular_values(
    data: st.DataObject,
) -> None:
    case = alike(data.draw(cases("iso_c", MATRICES, grid=False)))
    left, values, right = torch.linalg.svd(delta_of(case), full_matrices=False)
    assert_direction(case, len(case.models) * values.mean() * left @ right)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_iso_cts_takes_the_own_directions_of_identical_models_once(data: st.DataObject) -> None:
    """Common singular values count n times each; so do own ones, once for each model."""
    case = alike(data.draw(cases("iso_cts", MATRICES, grid=False)))
    left, values, right = torch.linalg.svd(delta_of(case), full_matrices=False)
    n = len(case.models)
    common = max(1, int(case.arguments["common"] * len(values)))
    own = (len(values) - common) // n
    mean = n * values[: common + own].sum() / (common + n * own)
    assert_direction(case, mean * left[:, : common + own] @ right[: common + own])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_wudi_gives_identical_models_what_the_ridge_leaves(data: st.DataObject) -> None:
    """T V diag(v / (v + ridge)) V^T, whose values v are those of T^T T, up to a factor.

    A weak ridge lets in what float32 rounds of the strongest direction: 2^-24 / ridge, and more
    where the others are zero.
    """
    case = alike(data.draw(cases("wudi", MATRICES, grid=False)))
    delta = delta_of(case).double()
    values, vectors = torch.linalg.eigh(delta.T @ delta)
    left = values / (values + case.arguments["ridge"] * values.mean())
    assert_direction(case, ((delta @ vectors * left) @ vectors.T).float(), within=1e-3)


@pytest.mark.parametrize("name", ["bmm", "bmm_data"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_bmm_gives_identical_models_what_lies_between_them_and_the_anchor(
    name: str, data: st.DataObject
) -> None:
    """A + (T - A) V diag(v / (v + ridge)) V^T, with the anchor A a multiple of T."""
    case = alike(data.draw(cases(name, MATRICES, grid=False)))
    n, delta = len(case.models), delta_of(case)
    case = case.having(weight=[1.0] * n)
    of_task = delta.T @ delta / (delta * delta).sum()
    grams = case.statistics["gram"] if name == "bmm_data" else (of_task,) * n
    values, vectors = torch.linalg.eigh(torch.stack(grams).mean(0))
    left = values / (values + case.arguments["ridge"] * values.mean())
    anchor = case.arguments["anchor"] * delta
    between = ((delta - anchor) @ vectors * left) @ vectors.T
    assert case.base is not None
    torch.testing.assert_close(case.merged(), case.base + anchor + between, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "iso_cts"])
@pytest.mark.parametrize(("shape", "tensor"), [((8,), "norm"), ((8, 6), "model.embed_tokens")])
def test_vectors_and_tables_of_tokens_take_the_mean_delta(
    name: str, shape: tuple[int, ...], tensor: str
) -> None:
    base, one, two = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    case = Case(METHODS[name], base, (one, two), None, {"lambda_": 0.5})
    torch.testing.assert_close(case.merged(name=tensor), base + 0.5 * ((one + two) / 2 - base))


def alike(case: Case) -> Case:
    """The case with its first model n times."""
    return replace(case, models=case.models[:1] * len(case.models))


def delta_of(case: Case) -> Tensor:
    assert case.base is not None
    return case.models[0] - case.base


def assert_direction(case: Case, direction: Tensor, within: float = 1e-4) -> None:
    assert case.base is not None
    expected = case.base + case.arguments["lambda_"] * direction
    torch.testing.assert_close(case.merged(), expected, rtol=within, atol=within)
