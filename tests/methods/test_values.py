"""Cases small enough to derive by hand, and the statistics of the random ones."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.errors import InputError, RecipeError
from mergesearch.methods import METHODS, Parameter, Scalar
from mergesearch.methods.dare import dare_linear, dare_ties
from mergesearch.methods.linear import linear
from mergesearch.methods.passthrough import passthrough
from mergesearch.methods.reduce import total
from mergesearch.methods.slerp import slerp
from mergesearch.methods.sparsify import drop, match_l1, trim
from mergesearch.methods.task_arithmetic import task_arithmetic
from mergesearch.methods.ties import ties

Rows = Sequence[Sequence[float]]


def m(rows: Rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def expect(actual: Tensor, rows: Rows) -> None:
    torch.testing.assert_close(actual, m(rows), rtol=1e-6, atol=1e-7)


def generators(n: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(n)]


BASE = m([[1, 2], [3, 4]])
A = m([[2, 0], [3, 8]])  # task vector [[1, -2], [0, 4]]
B = m([[5, 3], [2, 3]])  # task vector [[4, 1], [-1, -1]]


def test_linear() -> None:
    """Weights 1 and 3: (A + 3 B) / 4, e.g. (2 + 15) / 4 = 4.25; unnormalized, 17."""
    expect(linear([A, B], weight=[1, 3]), [[4.25, 2.25], [2.25, 4.25]])
    expect(linear([A, B], weight=[1, 3], normalize=False), [[17, 9], [9, 17]])


def test_equal_weights_are_the_uniform_soup() -> None:
    expect(linear([A, B, BASE], weight=[0.2] * 3), ((A + B + BASE) / 3).tolist())


def test_linear_weights_that_sum_to_zero_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"must not sum to zero, got \[1, -1\]") as caught:
        linear([A, B], weight=[1, -1])
    assert isinstance(caught.value, InputError)
    expect(linear([A, B], weight=[1, -1], normalize=False), (A - B).tolist())


def test_slerp() -> None:
    """Base and model at a right angle: t = 1/3 is 30 degrees of 90.

    sin 60 / sin 90 = sqrt(3)/2 of the base and sin 30 / sin 90 = 1/2 of the model.
    """
    base, model = m([[2, 0], [0, 0]]), m([[0, 0], [0, 4]])
    expect(slerp(base, [model], t=1 / 3), [[math.sqrt(3), 0], [0, 2]])


def test_slerp_uses_the_angle_of_unit_vectors_and_the_lengths_of_the_given_ones() -> None:
    """[1, 0] and [3, 3] are at 45 degrees; half way, both count sin 22.5 / sin 45 = 0.5411961."""
    half = math.sin(math.pi / 8) / math.sin(math.pi / 4)
    expect(slerp(m([[1, 0]]), [m([[3, 3]])], t=0.5), [[4 * half, 3 * half]])


@pytest.mark.parametrize("model", [m([[2, 4.001], [6, 8]]), -2 * BASE])
def test_slerp_of_parallel_models_is_linear(model: Tensor) -> None:
    expect(slerp(BASE, [model], t=0.25), (0.75 * BASE + 0.25 * model).tolist())


def test_slerp_falls_back_at_a_cosine_of_exactly_the_limit() -> None:
    """Cosines 0.9996 and 0.9994 lie on the two sides of 0.9995; t = 2 makes the gap visible."""
    for cosine, is_linear in ((0.9996, True), (0.9994, False)):
        a, b = m([[1, 0]]), m([[cosine, math.sqrt(1 - cosine**2)]])
        gap = (slerp(a, [b], t=2.0) - (2 * b - a)).abs().max()
        assert (float(gap) < 1e-6) == is_linear


def test_slerp_with_a_zero_model_does_not_divide_by_its_norm() -> None:
    """A norm below 1e-8 counts as one, so the cosine is 0: at t = 1/2 the base counts sin 45."""
    expect(slerp(BASE, [torch.zeros(2, 2)], t=0.5), (BASE * math.sqrt(0.5)).tolist())


@pytest.mark.parametrize("model", [A, B, -BASE, BASE * 1.01])
def test_slerp_reaches_its_ends(model: Tensor) -> None:
    expect(slerp(BASE, [model], t=0.0), BASE.tolist())
    expect(slerp(BASE, [model], t=1.0), model.tolist())


def test_task_arithmetic() -> None:
    """Weights 1/2 and -1: [[1/2 - 4, -1 - 1], [0 + 1, 2 + 1]] = [[-3.5, -2], [1, 3]].

    Doubled by lambda and added: [[1 - 7, 2 - 4], [3 + 2, 4 + 6]]. Normalized, the delta is divided
    by 1/2 - 1 = -1/2.
    """
    expect(task_arithmetic(BASE, [A, B], weight=[0.5, -1], lambda_=2), [[-6, -2], [5, 10]])
    expect(task_arithmetic(BASE, [A, B], weight=[0.5, -1], normalize=True), [[8, 6], [1, -2]])


def test_task_arithmetic_with_weights_that_cancel_is_not_divided() -> None:
    expect(task_arithmetic(BASE, [A, B], weight=[1, -1], normalize=True), (BASE + A - B).tolist())


def test_task_arithmetic_negates_adds_and_draws_analogies() -> None:
    expect(task_arithmetic(BASE, [A], weight=[-1]), (2 * BASE - A).tolist())
    expect(task_arithmetic(BASE, [A, B], weight=[1, 1]), (A + B - BASE).tolist())
    c = m([[0, 1], [1, 0]])
    expect(task_arithmetic(BASE, [A, B, c], weight=[-1, 1, 1]), (c + B - A).tolist())


def test_ties() -> None:
    """Weights 1 and 2, density 1/2: T_A is trimmed to [[0, -2], [0, 4]], T_B to [[4, 1], [0, 0]].

    (Of T_B's three ones the first by index is kept.) Weighted sums: [[8, -2 + 2], [0, 4]]; the
    zero elects plus, so only B's 2 agrees there. Divided by the agreeing weights: 8/2, 2/2, none,
    4/1.
    """
    merged = ties(BASE, [A, B], weight=[1, 2], density=[0.5, 0.5])
    expect(merged, [[1 + 4, 2 + 1], [3, 4 + 4]])
    merged = ties(BASE, [A, B], weight=[1, 2], density=[0.5, 0.5], normalize=False, lambda_=0.5)
    expect(merged, [[1 + 4, 2 + 1], [3, 4 + 2]])


def test_ties_disagreeing_entries_take_the_elected_side_only() -> None:
    """Density 1, weights 1: sums [[5, -1], [-1, 3]]: plus from both, A only, B only, A only."""
    merged = ties(BASE, [A, B], weight=[1, 1], density=[1, 1])
    expect(merged, [[1 + 2.5, 2 - 2], [3 - 1, 4 + 4]])


def test_ties_divides_by_the_sum_of_agreeing_weights_and_not_of_magnitudes() -> None:
    """Weights 2 and -1 on T = 1 and T = -3: both weighted deltas are positive, divisor 2 - 1."""
    one, minus_three = m([[1, 0], [0, 0]]), m([[-3, 0], [0, 0]])
    merged = ties(torch.zeros(2, 2), [one, minus_three], weight=[2, -1], density=[1, 1])
    expect(merged, [[5, 0], [0, 0]])


def test_ties_agreeing_weights_that_cancel_divide_by_one() -> None:
    one, minus_three = m([[1, 0], [0, 0]]), m([[-3, 0], [0, 0]])
    merged = ties(torch.zeros(2, 2), [one, minus_three], weight=[1, -1], density=[1, 1])
    expect(merged, [[4, 0], [0, 0]])


def test_ties_rescale_restores_the_l1_norm_of_each_task_vector() -> None:
    """T_A has L1 norm 7; its largest entry, 4, alone becomes 7."""
    merged = ties(BASE, [A], weight=[1], density=[0.25], rescale=True)
    expect(merged, [[1, 2], [3, 4 + 7]])


def test_dare_at_density_one_is_task_arithmetic_and_ties() -> None:
    weight, density = [0.5, -1.0], [1.0, 1.0]
    for normalize in (False, True):
        assert torch.equal(
            dare_linear(
                BASE, [A, B], weight=weight, density=density, generators=generators(2),
                lambda_=2.0, normalize=normalize,
            ),
            task_arithmetic(BASE, [A, B], weight=weight, lambda_=2.0, normalize=normalize),
        )  # fmt: skip
        assert torch.equal(
            dare_ties(
                BASE, [A, B], weight=weight, density=density, generators=generators(2),
                lambda_=2.0, normalize=normalize,
            ),
            ties(
                BASE, [A, B], weight=weight, density=density, lambda_=2.0, normalize=normalize
            ),
        )  # fmt: skip


def test_dare_by_hand_from_the_masks_it_draws() -> None:
    """The masks are `rand < density`; T_A and T_B are masked and divided by it, then summed."""
    masks = [torch.rand(2, 2, generator=g) < 0.5 for g in generators(2, seed=5)]
    task_vectors = [
        torch.where(mask, (model - BASE) / 0.5, 0.0)
        for mask, model in zip(masks, (A, B), strict=True)
    ]
    merged = dare_linear(
        BASE, [A, B], weight=[1, 1], density=[0.5, 0.5], generators=generators(2, seed=5),
        rescale="density",
    )  # fmt: skip
    expect(merged, (BASE + task_vectors[0] + task_vectors[1]).tolist())


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_drop_keeps_about_the_density(density: float) -> None:
    """n = 40,000: the kept fraction has a standard deviation of at most 0.0025."""
    delta = torch.randn(200, 200, generator=torch.Generator().manual_seed(1)) + 3
    dropped = drop(delta, density, False, generators(1)[0])
    kept = dropped != 0
    assert float(kept.float().mean()) == pytest.approx(density, abs=0.0125)
    assert torch.equal(dropped[kept], delta[kept])


def test_drop_masks_of_different_generators_are_independent() -> None:
    ones = torch.ones(200, 200)
    first, second = (drop(ones, 0.5, False, g) for g in generators(2))
    assert float((first * second).mean()) == pytest.approx(0.25, abs=0.0125)


def test_rescale_by_density_keeps_the_mean_and_rescale_true_the_l1_norm() -> None:
    delta = torch.randn(200, 200, generator=torch.Generator().manual_seed(2)) + 1
    by_density = drop(delta, 0.4, "density", generators(1)[0])
    kept = by_density != 0
    torch.testing.assert_close(by_density[kept], delta[kept] / 0.4)
    assert float(by_density.mean()) == pytest.approx(float(delta.mean()), rel=0.05)
    by_norm = drop(delta, 0.4, True, generators(1)[0])
    assert total(by_norm.abs()) == pytest.approx(total(delta.abs()), rel=1e-6)
    ratio = by_norm[kept] / delta[kept]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0])))
    assert not torch.equal(by_norm, by_density)


def test_a_delta_that_loses_everything_stays_zero() -> None:
    zeros = torch.zeros(2, 2)
    assert torch.equal(match_l1(zeros, BASE), zeros)
    assert torch.equal(match_l1(zeros, zeros), zeros)


@given(
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12),
    st.floats(0.01, 1.0),
)
def test_trim_keeps_the_largest_and_breaks_ties_by_index(values: list[float], d: float) -> None:
    kept = max(1, int(d * len(values)))
    ranked = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))
    survivors = set(ranked[:kept])
    expected = [v if i in survivors else 0.0 for i, v in enumerate(values)]
    assert trim(torch.tensor(values), d).tolist() == expected


def test_trim_ties_run_through_rows() -> None:
    """Four equal magnitudes, density 1/2: the first row is kept."""
    expect(trim(m([[-1, 1], [1, -1]]), 0.5), [[-1, 1], [0, 0]])


def test_passthrough() -> None:
    copy = passthrough([A], scale=[None])
    assert torch.equal(copy, A)
    assert copy.data_ptr() != A.data_ptr()
    expect(passthrough([A], scale=[-0.5]), [[-1, 0], [-1.5, -4]])


def test_total_is_the_sum_whatever_its_size() -> None:
    x = torch.arange(50_000).reshape(5, 100, 100).float()
    assert total(x) == 50_000 * 49_999 / 2
    assert total(torch.zeros(0)) == 0.0
    assert total(torch.tensor(3.0)) == 3.0


def test_total_has_the_same_bits_for_any_number_of_threads() -> None:
    """Many sizes, since a sum that is split among threads rounds the same way now and then."""
    generator = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    tensors = [torch.randn(n, generator=generator) for n in range(100_000, 400_000, 9_973)]
    sums = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sums.append([total(tensor) for tensor in tensors])
    finally:
        torch.set_num_threads(before)
    assert sums[0] == sums[1]


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
