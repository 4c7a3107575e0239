"""The methods that average or add models, on cases small enough to derive by hand."""

import math

import pytest
import torch
from torch import Tensor

from mergesearch.errors import CandidateError
from tests.methods.hand import BASE, A, B, expect, m, run


def test_linear() -> None:
    """Weights 1 and 3: (A + 3 B) / 4, e.g. (2 + 15) / 4 = 4.25; unnormalized, 17."""
    expect(run("linear", None, [A, B], weight=[1, 3]), [[4.25, 2.25], [2.25, 4.25]])
    expect(run("linear", None, [A, B], weight=[1, 3], normalize=False), [[17, 9], [9, 17]])


def test_equal_weights_are_the_uniform_soup() -> None:
    """Thirds of 1 + 2 + 5, 2 + 0 + 3, 3 + 3 + 2 and 4 + 8 + 3."""
    merged = run("linear", None, [A, B, BASE], weight=[0.2] * 3)
    expect(merged, [[8 / 3, 5 / 3], [8 / 3, 5]])


def test_passthrough_copies_or_scales() -> None:
    expect(run("passthrough", None, [A], scale=[None]), [[2, 0], [3, 8]])
    expect(run("passthrough", None, [A], scale=[-0.5]), [[-1, 0], [-1.5, -4]])


def test_task_arithmetic() -> None:
    """Weights 1/2 and -1: [[1/2 - 4, -1 - 1], [0 + 1, 2 + 1]] = [[-3.5, -2], [1, 3]].

    Doubled by lambda and added: [[1 - 7, 2 - 4], [3 + 2, 4 + 6]]. Normalized, the delta is divided
    by 1/2 - 1 = -1/2.
    """
    merged = run("task_arithmetic", BASE, [A, B], weight=[0.5, -1], lambda_=2.0)
    expect(merged, [[-6, -2], [5, 10]])
    merged = run("task_arithmetic", BASE, [A, B], weight=[0.5, -1], normalize=True)
    expect(merged, [[8, 6], [1, -2]])


def test_task_arithmetic_with_weights_that_cancel_is_not_divided() -> None:
    """T_A - T_B = [[-3, -3], [1, 5]]."""
    merged = run("task_arithmetic", BASE, [A, B], weight=[1, -1], normalize=True)
    expect(merged, [[-2, -1], [4, 9]])


def test_task_arithmetic_adds() -> None:
    """T_A + T_B = [[5, -1], [-1, 3]]."""
    expect(run("task_arithmetic", BASE, [A, B], weight=[1, 1]), [[6, 1], [2, 7]])


def test_task_arithmetic_forgets_by_negation() -> None:
    expect(run("task_arithmetic", BASE, [A], weight=[-1]), [[0, 4], [3, 0]])


def test_task_arithmetic_draws_the_analogy() -> None:
    """C + (B - A) = [[0 + 3, 1 + 3], [1 - 1, 0 - 5]], whatever the base."""
    c = m([[0, 1], [1, 0]])
    for base in (BASE, 7 * c):
        merged = run("task_arithmetic", base, [A, B, c], weight=[-1, 1, 1])
        expect(merged, [[3, 4], [0, -5]])


def test_magmax() -> None:
    """Of [[1, -2], [0, 4]] and [[4, 1], [-1, -1]]: [[4, -2], [-1, 4]], half of it added."""
    expect(run("magmax", BASE, [A, B], lambda_=0.5), [[3, 1], [2.5, 6]])


def test_magmax_takes_the_first_of_equal_magnitudes() -> None:
    zero = m([[0, 0]])
    expect(run("magmax", zero, [m([[1, -2]]), m([[-1, 2]])], lambda_=1.0), [[1, -2]])


def test_slerp() -> None:
    """Base and model at a right angle: t = 1/3 is 30 degrees of 90.

    sin 60 / sin 90 = sqrt(3)/2 of the base and sin 30 / sin 90 = 1/2 of the model.
    """
    base, model = m([[2, 0], [0, 0]]), m([[0, 0], [0, 4]])
    expect(run("slerp", base, [model], t=1 / 3), [[math.sqrt(3), 0], [0, 2]])


def test_slerp_uses_the_angle_of_unit_vectors_and_the_lengths_of_the_given_ones() -> None:
    """[1, 0] and [3, 3] are at 45 degrees; half way, both count sin 22.5 / sin 45 = 0.5411961."""
    merged = run("slerp", m([[1, 0]]), [m([[3, 3]])], t=0.5)
    expect(merged, [[4 * 0.5411961, 3 * 0.5411961]])


@pytest.mark.parametrize("model", [m([[2, 4.001], [6, 8]]), -2 * BASE])
def test_slerp_of_parallel_models_is_linear(model: Tensor) -> None:
    expect(run("slerp", BASE, [model], t=0.25), (0.75 * BASE + 0.25 * model).tolist())


def test_slerp_falls_back_at_a_cosine_of_the_limit() -> None:
    """Cosines 0.9996 and 0.9994 lie on the two sides of 0.9995; t = 2 makes the gap visible."""
    for cosine, is_linear in ((0.9996, True), (0.9994, False)):
        a, b = m([[1, 0]]), m([[cosine, math.sqrt(1 - cosine**2)]])
        gap = (run("slerp", a, [b], t=2.0) - (2 * b - a)).abs().max()
        assert (float(gap) < 1e-6) == is_linear


def test_slerp_with_a_zero_model_does_not_divide_by_its_norm() -> None:
    """A norm below 1e-8 counts as one, so the cosine is 0: at t = 1/2 the base counts sin 45."""
    merged = run("slerp", BASE, [torch.zeros(2, 2)], t=0.5)
    expect(merged, (BASE * math.sqrt(0.5)).tolist())


@pytest.mark.parametrize("model", [A, B, -BASE, BASE * 1.01])
def test_slerp_reaches_its_ends_and_is_symmetric(model: Tensor) -> None:
    expect(run("slerp", BASE, [model], t=0.0), BASE.tolist())
    expect(run("slerp", BASE, [model], t=1.0), model.tolist())
    there, back = run("slerp", BASE, [model], t=0.3), run("slerp", model, [BASE], t=0.7)
    torch.testing.assert_close(there, back)


def test_crossover() -> None:
    """At t = 1/3 and a right angle the ends count (0.8660254, 0.5), after the split (0.5, 0.866).

    Three of four entries lie before it.
    """
    base, model = m([[2, 2], [0, 0]]), m([[1, -1], [0, 4]])
    r = math.sqrt(3) / 2
    merged = run("crossover", base, [model], t=1 / 3, split=0.75, flat_range=(0, 4))
    expect(merged, [[2 * r + 0.5, 2 * r - 0.5], [0, 4 * r]])


def test_nuslerp() -> None:
    """Weights 2 and 1 are t = 1/3: as for slerp. Halved, they are the same."""
    one, two = m([[2, 0], [0, 0]]), m([[0, 0], [0, 4]])
    for scale in (1, 0.5):
        merged = run("nuslerp", None, [one, two], weight=[2 * scale, scale])
        expect(merged, [[math.sqrt(3), 0], [0, 2]])


def test_nuslerp_of_task_vectors() -> None:
    """[[2, 0], [0, 0]] and [[0, 0], [0, 4]] again, apart from a base; weights of no sum: 1/2."""
    models = [BASE + m([[2, 0], [0, 0]]), BASE + m([[0, 0], [0, 4]])]
    merged = run("nuslerp", BASE, models, weight=[1, -1])
    half = math.sqrt(0.5)
    expect(merged, [[1 + 2 * half, 2], [3, 4 + 4 * half]])


def test_nuslerp_by_row_and_by_column() -> None:
    """Half way. Rows: [1, 0] and [0, 1] are at 90 degrees, [0, 2] and [0, 4] parallel: mean 3.

    Columns: [1, 0] and [0, 0] have, a zero norm counting as little, the cosine 0, so each counts
    sin 45; [0, 2] and [1, 4] have the cosine 4 / sqrt 17, and count sin(a/2) / sin a each, that is
    1 / (2 cos(a/2)) = 1 / sqrt(2 + 2 cos a) = 0.5038244 with cos a = 0.9701425.
    """
    one, two = m([[1, 0], [0, 2]]), m([[0, 1], [0, 4]])
    half = math.sqrt(0.5)
    rows = run("nuslerp", None, [one, two], weight=[1, 1], nuslerp_flatten=False)
    expect(rows, [[half, half], [0, 3]])
    columns = run(
        "nuslerp", None, [one, two], weight=[1, 1], nuslerp_flatten=False, nuslerp_row_wise=True
    )
    share = 1 / math.sqrt(2 + 8 / math.sqrt(17))
    expect(columns, [[half, share], [0, 6 * share]])


def test_multislerp() -> None:
    """Weights 1 and 1 of [2, 0] and [0, 4]: the mean direction is 45 degrees, the mean norm 3.

    Their tangents cancel, so it stays there: 3 / sqrt 2 each.
    """
    merged = run("multislerp", None, [m([[2, 0]]), m([[0, 4]])], weight=[1, 1])
    expect(merged, [[3 / math.sqrt(2)] * 2])


def test_multislerp_weighted() -> None:
    """Weights 3/4 and 1/4 of [1, 0] and [0, 1]: the mean is [3, 1] / 4, whose length is projected.

    The tangent is that mean less its part along itself, so zero: it stays at [3, 1] / sqrt 10.
    """
    merged = run("multislerp", None, [m([[1, 0]]), m([[0, 1]])], weight=[3, 1])
    expect(merged, [[3 / math.sqrt(10), 1 / math.sqrt(10)]])


def test_multislerp_of_directions_that_cancel_is_linear_for_two_and_refused_for_more() -> None:
    opposite = [m([[1, 0]]), m([[-3, 0]])]
    expect(run("multislerp", None, opposite, weight=[1, 1]), [[-1, 0]])
    with pytest.raises(CandidateError, match=r"^norm: multislerp is undefined.*\[1, 1, 0\]"):
        run("multislerp", None, [*opposite, m([[0, 1]])], weight=[1, 1, 0], name="norm")


def test_multislerp_of_models_that_changed_nothing_is_the_base() -> None:
    expect(run("multislerp", BASE, [BASE] * 3, weight=[1, 1, 1]), BASE.tolist())


def test_karcher() -> None:
    """[2, 0] and [0, 4] meet at 45 degrees with the mean norm 3; a zero model has no direction.

    Its norm counts in the mean all the same: (2 + 4 + 0) / 3 = 2.
    """
    merged = run("karcher", None, [m([[2, 0]]), m([[0, 4]])])
    expect(merged, [[3 / math.sqrt(2)] * 2])
    merged = run("karcher", None, [m([[2, 0]]), m([[0, 4]]), m([[0, 0]])])
    expect(merged, [[2 / math.sqrt(2)] * 2])


def test_karcher_mean_of_three_directions_in_a_plane_is_at_their_mean_angle() -> None:
    """0, 0 and 90 degrees: 30 degrees, which the normalized sum (26.6 degrees) is not."""
    models = [m([[1, 0]]), m([[1, 0]]), m([[0, 1]])]
    merged = run("karcher", None, models)
    expect(merged, [[math.sqrt(3) / 2, 0.5]])
