"""The methods that go by angles, distances or singular vectors, on cases derived by hand."""

import math

import torch

from tests.methods.hand import BASE, A, expect, m, run


def test_model_stock() -> None:
    """Task vectors at 60 degrees: t = 2 (1/2) / (1 + 1/2) = 2/3 of the mean [[3/4, sqrt(3)/4]]."""
    models = [m([[1, 0]]), m([[0.5, math.sqrt(3) / 2]])]
    merged = run("model_stock", torch.zeros(1, 2), models)
    expect(merged, [[0.5, math.sqrt(3) / 6]])


def test_model_stock_of_three_takes_the_mean_cosine() -> None:
    """Cosines 1, 0, 0: t = 3 (1/3) / (1 + 2 (1/3)) = 3/5 of the mean [[2/3, 1/3]]."""
    models = [m([[1, 0]]), m([[1, 0]]), m([[0, 1]])]
    merged = run("model_stock", torch.zeros(1, 2), models)
    expect(merged, [[0.4, 0.2]])


def test_model_stock_by_row() -> None:
    """The first rows are parallel, t = 1; the second ones at a right angle, t = 0."""
    models = [BASE + m([[1, 0], [1, 0]]), BASE + m([[3, 0], [0, 1]])]
    merged = run("model_stock", BASE, models, filter_wise=True)
    expect(merged, [[1 + 2, 2], [3, 4]])


def test_nearswap() -> None:
    """t = 1 at the distances 1, 2, 0 and 4: shares 1, 1/2, 1 and 1/4 of [[1, -2], [0, 4]]."""
    expect(run("nearswap", BASE, [A], t=1.0), [[1 + 1, 2 - 1], [3, 4 + 1]])


def test_arcee_fusion() -> None:
    """One row: the divergence is the same for all, so that the changes 1, 0, 2, 3 and 10 count.

    Sorted, the quartiles are those at 1, 2 and 3: the threshold is 2 + 1.5 (3 - 1) = 5.
    """
    merged = run("arcee_fusion", torch.zeros(1, 5), [m([[1, 0, -2, 3, 10]])])
    expect(merged, [[0, 0, 0, 0, 10]])


def test_arcee_fusion_weighs_a_change_by_its_rows_divergence() -> None:
    """A row that is shifted as a whole has none: its importance is zero, however large the shift.

    Of the ten sorted values 0, 0, 0, 0, 0, 0, 1, 2, 3 and 10 the quartiles are those at 2, 4 and 6:
    the threshold is 0 + 1.5 (1 - 0).
    """
    merged = run("arcee_fusion", torch.zeros(2, 5), [m([[1, 0, -2, 3, 10], [50] * 5])])
    expect(merged, [[0, 0, -2, 3, 10], [0] * 5])


def test_tsv_m() -> None:
    """3 e eᵀ and 2 u uᵀ with e = (1, 0) and u at 45 degrees; one direction of each is kept.

    The nearest orthonormal pair lies evenly about them, a at -22.5 degrees and b at 67.5: with
    cos² = 0.8535534, sin² = 0.1464466 and cos sin = 0.3535534, 3 a aᵀ + 2 b bᵀ.
    """
    models = [BASE + m([[3, 0], [0, 0]]), BASE + m([[1, 1], [1, 1]])]
    merged = run("tsv_m", BASE, models, lambda_=1.0)
    expect(merged, [[1 + 2.8535534, 2 - 0.3535534], [3 - 0.3535534, 4 + 2.1464466]])


def test_iso_c() -> None:
    """The sum is diag(3, -1): both singular values become 2; half of that is added."""
    models = [BASE + m([[3, 0], [0, 0]]), BASE + m([[0, 0], [0, -1]])]
    expect(run("iso_c", BASE, models, lambda_=0.5), [[1 + 1, 2], [3, 4 - 1]])


def test_iso_cts() -> None:
    """Half of two directions is one in common: (1, 0) of diag(3, 1).

    One model has a direction of its own beside, and both values become 2. For two models there is
    no room for one each, and 3 stays.
    """
    merged = run("iso_cts", BASE, [BASE + m([[3, 0], [0, 1]])], common=0.5)
    expect(merged, [[1 + 2, 2], [3, 4 + 2]])
    models = [BASE + m([[3, 0], [0, 0]]), BASE + m([[0, 0], [0, 1]])]
    expect(run("iso_cts", BASE, models, common=0.5), [[1 + 3, 2], [3, 4]])
