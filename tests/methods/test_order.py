"""The k largest entries by (magnitude descending, index ascending), found without a sort."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.methods import METHODS, Inputs
from mergesearch.methods.executor import Executor, row_ranges
from mergesearch.methods.order import DELTA, EVERYTHING, NOTHING, Cut, among, cut, tabulate
from tests.methods.cases import having

TINY = 1e-45  # the smallest denormal
COARSE = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
# Magnitudes of one bin (a bin holds 2^16 neighbours), of far ones, and those at the ends.
NEAR = st.integers(0, 6).map(lambda i: float(np.float32(1) + i * np.float32(2.0**-23)))
ENDS = st.sampled_from([0.0, -0.0, TINY, -TINY, 3 * TINY, 1e-38, 1.2e-38, 3e38, -3.4e38])
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
LISTS = st.sampled_from([COARSE, NEAR, ENDS, ANY, COARSE | NEAR | ENDS | ANY]).flatmap(
    lambda values: st.lists(values, min_size=1, max_size=40)
)
BLOCKS = st.sampled_from([1, 3, 7, 64, 131_072])


def in_blocks(block: int) -> Executor:
    return Executor(block=block, heavy_block=block)


def inputs_of(values: Sequence[float], columns: int, block: int) -> Inputs:
    """Deltas of those values from a base of zeros, as rows of so many columns."""
    delta = torch.tensor(values, dtype=torch.float32)
    if len(delta) % columns == 0:
        delta = delta.view(-1, columns)
    return Inputs.of(torch.zeros_like(delta), [delta], executor=in_blocks(block))


def ranked(values: Sequence[float]) -> list[int]:
    """Indices in the order, by numpy's stable sort."""
    return np.argsort(-np.abs(np.array(values, dtype=np.float32)), kind="stable").tolist()


def kept_by(inputs: Inputs, found: Cut) -> list[int]:
    """The indices that a cut keeps, block by block."""
    kept: list[int] = []
    for rows in row_ranges(inputs.models[0], inputs.executor.block):
        start = rows.start * inputs.shape[1]
        mask = among(
            inputs.models[0][rows].abs(),
            torch.tensor(found.threshold),
            torch.tensor(found.last),
            torch.tensor(start),
        )
        kept += (mask.flatten().nonzero().flatten() + start).tolist()
    return kept


@settings(max_examples=150, deadline=None)
@given(values=LISTS, columns=st.integers(1, 6), block=BLOCKS, data=st.data())
def test_every_number_of_entries_is_kept_exactly_and_they_are_the_largest(
    values: list[float], columns: int, block: int, data: st.DataObject
) -> None:
    inputs = inputs_of(values, columns, block)
    histogram = tabulate(inputs, DELTA)
    order = ranked(values)
    for k in range(len(values) + 1):
        assert kept_by(inputs, cut(inputs, DELTA, histogram, k)) == sorted(order[:k]), k


@pytest.mark.parametrize("block", [1, 1000, 131_072])
def test_a_tensor_of_many_equal_magnitudes_is_cut_exactly(block: int) -> None:
    values = (torch.randint(-40, 41, (150, 70), generator=torch.Generator().manual_seed(0))) / 16
    flat = values.flatten().tolist()
    inputs = Inputs.of(torch.zeros_like(values), [values], executor=in_blocks(block))
    histogram, order = tabulate(inputs, DELTA), ranked(flat)
    for k in (1, 2, 99, 5_000, 10_000, 10_498, 10_499):
        assert kept_by(inputs, cut(inputs, DELTA, histogram, k)) == sorted(order[:k]), k


def test_a_histogram_counts_the_entries_of_each_bin_and_above() -> None:
    histogram = tabulate(inputs_of([4.0, -1.0, 1.0, 2.0], 4, 64), DELTA)
    ones = int(torch.tensor(1.0).view(torch.int32)) >> 16
    assert histogram.lowest == ones
    # a factor of two is one more in the exponent, which is 2^7 bins
    assert histogram.from_above.tolist() == [4] + [2] * 128 + [1] * 128
    assert [histogram.bin_of(rank) for rank in (1, 2, 3, 4)] == [
        (ones + 256, 1), (ones + 128, 1), (ones, 1), (ones, 2),
    ]  # fmt: skip


def test_nothing_and_everything_need_no_histogram() -> None:
    inputs = inputs_of([3e38, 0.0], 1, 64)
    assert cut(inputs, DELTA, tabulate(inputs, DELTA), 0) == NOTHING
    assert cut(inputs, DELTA, tabulate(inputs, DELTA), 2) == EVERYTHING
    assert kept_by(inputs, NOTHING) == []
    assert kept_by(inputs, EVERYTHING) == [0, 1]


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_among_the_largest_however_few_are_kept(bad: float) -> None:
    inputs = inputs_of([1.0, bad, bad, 3.0], 2, 1)
    histogram = tabulate(inputs, DELTA)
    for k in range(1, 5):
        assert {1, 2} <= set(kept_by(inputs, cut(inputs, DELTA, histogram, k)))


def survivors(name: str, values: list[float], block: int, **arguments: list[float]) -> Tensor:
    """What a method leaves of one task vector, of the weight one."""
    inputs = inputs_of(values, 1, block)
    method = METHODS[name]
    given = {"weight": [1.0], "lambda_": 1.0, "normalize": False, **arguments}
    formula = method.formula(inputs, **method.arguments(1, given))
    return torch.cat([value.flatten() for _, value in inputs.values(formula)])


@settings(max_examples=80, deadline=None)
@given(values=st.lists(COARSE | NEAR, min_size=1, max_size=30), density=st.floats(0.01, 1))
def test_ties_keeps_the_largest_of_its_density_and_at_least_one(
    values: list[float], density: float
) -> None:
    kept = set(ranked(values)[: max(1, int(density * len(values)))])
    expected = [v if i in kept else 0.0 for i, v in enumerate(values)]
    assert survivors("ties", values, 7, density=[density]).tolist() == expected


@pytest.mark.parametrize("name", having("gamma"))
@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(COARSE | NEAR, min_size=1, max_size=30),
    density=st.floats(0.01, 1),
    gamma=st.floats(0, 1),
    block=BLOCKS,
)
def test_breadcrumbs_keeps_the_band_below_its_outliers(
    name: str, values: list[float], density: float, gamma: float, block: int
) -> None:
    n = len(values)
    kept = int(density * n)
    outliers = min(int(gamma * n), n - kept)
    band = set(ranked(values)[outliers : outliers + kept])
    expected = [v if i in band else 0.0 for i, v in enumerate(values)]
    merged = survivors(name, values, block, density=[density], gamma=[gamma])
    assert merged.tolist() == expected


def test_breadcrumbs_of_a_tensor_too_small_for_outliers_drops_the_smallest_only() -> None:
    merged = survivors("breadcrumbs", [1.0, -3.0, 2.0, 0.5], 64, density=[0.5], gamma=[0.1])
    assert merged.tolist() == [0.0, -3.0, 2.0, 0.0]
