"""The methods that keep a part of each task vector, on cases small enough to derive by hand.

T_A is [[1, -2], [0, 4]] and T_B is [[4, 1], [-1, -1]], both of the L1 norm 7.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.hand import BASE, A, B, Rows, expect, m, run

# The random numbers in [0, 1) of indices 0 to 3 that the hash has for these keys, computed with
# Python's integers: 0.943, 0.535, 0.862, 0.351 and 0.219, 0.294, 0.999, 0.488.
KEYS = torch.tensor([[1, 2], [7, 8]], dtype=torch.int32)
# And of this one: 0.964, 0.453, 0.184, 0.260.
ANOTHER = torch.tensor([[5, 6]], dtype=torch.int32)


def test_ties() -> None:
    """Weights 1 and 2, density 1/2: T_A is trimmed to [[0, -2], [0, 4]], T_B to [[4, 1], [0, 0]].

    (Of T_B's three ones the first by index is kept.) Weighted sums: [[8, -2 + 2], [0, 4]]; the
    zero elects plus, so only B's 2 agrees there. Divided by the agreeing weights: 8/2, 2/2, none,
    4/1.
    """
    merged = run("ties", BASE, [A, B], weight=[1, 2], density=[0.5, 0.5])
    expect(merged, [[1 + 4, 2 + 1], [3, 4 + 4]])
    merged = run(
        "ties", BASE, [A, B], weight=[1, 2], density=[0.5, 0.5], normalize=False, lambda_=0.5
    )
    expect(merged, [[1 + 4, 2 + 1], [3, 4 + 2]])


def test_ties_disagreeing_entries_take_the_elected_side_only() -> None:
    """Density 1, weights 1: sums [[5, -1], [-1, 3]]: plus from both, A only, B only, A only."""
    merged = run("ties", BASE, [A, B], weight=[1, 1], density=[1, 1])
    expect(merged, [[1 + 2.5, 2 - 2], [3 - 1, 4 + 4]])


@pytest.mark.parametrize(("weight", "merged"), [([2, -1], 5), ([1, -1], 4)])
def test_ties_divides_by_agreeing_weights_or_by_one_where_they_cancel(
    weight: list[float], merged: float
) -> None:
    """T = 1 and T = -3 agree at a negative weight: (2 + 3) / (2 - 1), and 1 + 3 over one."""
    models = [m([[1, 0], [0, 0]]), m([[-3, 0], [0, 0]])]
    result = run("ties", torch.zeros(2, 2), models, weight=weight, density=[1, 1])
    expect(result, [[merged, 0], [0, 0]])


def test_ties_rescale_restores_the_l1_norm_of_each_task_vector() -> None:
    """T_A's largest entry, 4, alone becomes 7."""
    merged = run("ties", BASE, [A], weight=[1], density=[0.25], rescale=True)
    expect(merged, [[1, 2], [3, 4 + 7]])


def test_ties_keeps_one_entry_at_least() -> None:
    expect(run("ties", BASE, [A], weight=[1], density=[0.1]), [[1, 2], [3, 8]])


@pytest.mark.parametrize(
    ("rescale", "merged"),
    [
        # T_A keeps [[0, -2], [0, 4]] (numbers up to 0.6), T_B keeps [[4, 1], [0, 0]] (up to 0.3)
        (False, [[1 + 4, 2 - 1], [3, 4 + 4]]),
        # divided by the densities: -2/0.6 + 1/0.3 = 0
        ("density", [[1 + 4 / 0.3, 2], [3, 4 + 4 / 0.6]]),
        # times 7/6 and 7/5, so that the norms are 7 again
        (True, [[1 + 5.6, 2 - 7 / 3 + 1.4], [3, 4 + 14 / 3]]),
    ],
)
def test_dare_linear(rescale: Any, merged: Rows) -> None:
    result = run(
        "dare_linear", BASE, [A, B], keys=KEYS, weight=[1, 1], density=[0.6, 0.3], rescale=rescale
    )
    expect(result, merged)


def test_dare_ties() -> None:
    """Weights 1 and 2 of the rescaled: [[0, -7/3], [0, 14/3]] and [[11.2, 2.8], [0, 0]].

    The second entries' sum is positive, so that B's stands alone. Normalized, all are divided by
    the weight of the one that agrees.
    """
    arguments = {"keys": KEYS, "weight": [1, 2], "density": [0.6, 0.3]}
    merged = run("dare_ties", BASE, [A, B], **arguments)
    expect(merged, [[1 + 11.2, 2 + 2.8], [3, 4 + 14 / 3]])
    merged = run("dare_ties", BASE, [A, B], **arguments, normalize=True)
    expect(merged, [[1 + 5.6, 2 + 1.4], [3, 4 + 14 / 3]])


def test_della_linear() -> None:
    """Density 0.5, epsilon 0.3: of two entries in a row the smaller stays at 0.2, the other at 0.8.

    T_A keeps [[0, -2], [0, 4]]: 0.535 and 0.351 are below 0.8. T_B keeps [[4, 0], [0, -1]]: 0.219
    is below 0.8, 0.294 not below 0.2, and of the equal ones in its second row the latter ranks
    higher, 0.488 below 0.8. With norms restored, times 7/6 and 7/5.
    """
    arguments = {"keys": KEYS, "weight": [1, 1], "density": [0.5] * 2, "epsilon": [0.3] * 2}
    merged = run("della_linear", BASE, [A, B], **arguments, rescale=False)
    expect(merged, [[1 + 4, 2 - 2], [3, 4 + 3]])
    merged = run("della_linear", BASE, [A, B], **arguments)
    expect(merged, [[1 + 5.6, 2 - 7 / 3], [3, 4 + 14 / 3 - 1.4]])


def test_della() -> None:
    """As above; of 4 and -1 the positive sum elects the 4."""
    merged = run(
        "della", BASE, [A, B], keys=KEYS, weight=[1, 1], density=[0.5] * 2, epsilon=[0.3] * 2,
        rescale=False,
    )  # fmt: skip
    expect(merged, [[1 + 4, 2 - 2], [3, 4 + 4]])


@pytest.mark.parametrize(
    ("model", "merged"),
    [
        # ranks 2, 0, 1 stay at 0.8, 0.2, 0.5; the numbers are 0.964, 0.453, 0.184
        (m([[3, 1, -2]]), [[0, 0, -2]]),
        # alone in its row each stays at 0.5, and 0.453, 0.184 and 0.260 are below
        (m([[9], [8], [7], [6]]), [[0], [8], [7], [6]]),
    ],
)
def test_della_ranks_within_each_row(model: Tensor, merged: Rows) -> None:
    result = run(
        "della_linear", torch.zeros_like(model), [model], keys=ANOTHER, weight=[1],
        density=[0.5], epsilon=[0.3], rescale=False,
    )  # fmt: skip
    expect(result, merged)


BAND: dict[str, Any] = {"density": [0.5, 0.5], "gamma": [0.25, 0.25]}


def test_breadcrumbs() -> None:
    """Of four entries one is an outlier and two stay: [[1, -2], [0, 0]] and [[0, 1], [-1, 0]].

    (T_B's outlier is the 4, and of its three ones the first two are larger by index.) Weights 1
    and 2: the sum is [[1, 0], [-2, 0]], divided by 3 when normalized. T_A alone, rescaled: 7/3.
    """
    merged = run("breadcrumbs", BASE, [A, B], weight=[1, 2], **BAND)
    expect(merged, [[2, 2], [1, 4]])
    merged = run("breadcrumbs", BASE, [A, B], weight=[1, 2], normalize=True, **BAND)
    expect(merged, [[1 + 1 / 3, 2], [3 - 2 / 3, 4]])
    merged = run("breadcrumbs", BASE, [A], weight=[1], density=[0.5], gamma=[0.25], rescale=True)
    expect(merged, [[1 + 7 / 3, 2 - 14 / 3], [3, 4]])


def test_breadcrumbs_ties() -> None:
    """The second entry's sum, -2 + 2, elects plus: B's 2 stays; normalized, B's are halved."""
    merged = run("breadcrumbs_ties", BASE, [A, B], weight=[1, 2], **BAND)
    expect(merged, [[2, 4], [1, 4]])
    merged = run("breadcrumbs_ties", BASE, [A, B], weight=[1, 2], normalize=True, **BAND)
    expect(merged, [[2, 3], [2, 4]])


def test_breadcrumbs_has_fewer_outliers_where_less_than_the_density_would_be_left() -> None:
    """Density 3/4 of four leaves room for one outlier, whatever gamma says."""
    merged = run("breadcrumbs", BASE, [A], weight=[1], density=[0.75], gamma=[0.9])
    expect(merged, [[2, 0], [3, 4]])


def test_sce() -> None:
    """All are selected: the mean squares are as 1 + 4 + 0 + 16 = 21 and 16 + 1 + 1 + 1 = 19.

    Signs of the sums [[5, -1], [-1, 3]]: both agree at the first, (21 * 1 + 19 * 4) / 40, and one
    alone elsewhere.
    """
    merged = run("sce", BASE, [A, B])
    expect(merged, [[1 + 97 / 40, 2 - 2], [3 - 1, 4 + 4]])


def test_sce_selects_by_variance() -> None:
    """The variances are a quarter of 9, 9, 1 and 25; half of four are kept: the last and the first.

    (Of the equal ones the first by index.) Squares: 1 + 16 and 16 + 1, so that both count 1/2; the
    last entry's sum is positive, where only A agrees.
    """
    merged = run("sce", BASE, [A, B], select_topk=0.5)
    expect(merged, [[1 + 2.5, 2], [3, 4 + 4]])


def test_sce_selects_of_the_entries_that_vary() -> None:
    """One of two entries varies, and half of one is none."""
    merged = run("sce", torch.zeros(1, 2), [m([[1, 5]]), m([[3, 5]])], select_topk=0.5)
    expect(merged, [[0, 0]])


def test_ram() -> None:
    """The mean where both changed the entry; -1 alone at the third, where A did not."""
    expect(run("ram", BASE, [A, B]), [[1 + 2.5, 2 - 0.5], [3 - 1, 4 + 1.5]])


@pytest.mark.parametrize(("alpha", "boost"), [(2.0, 2.0), (4.0, 2.5)])
def test_ramplus_tl(alpha: float, boost: float) -> None:
    """B changed three entries with A and one alone: that counts 1 + r min(3 / 1, alpha)."""
    merged = run("ramplus_tl", BASE, [A, B], r=0.5, alpha=alpha)
    expect(merged, [[1 + 2.5, 2 - 0.5], [3 - boost, 4 + 1.5]])


def test_ram_takes_changes_up_to_epsilon_for_none() -> None:
    models = [m([[0.5, 2]]), m([[4, 6]])]
    expect(run("ram", torch.zeros(1, 2), models, epsilon=0.5), [[4, 4]])
