"""Consensus TA, PCB-Merging and Localize-and-Stitch: by hand, and what their papers say."""

import math

import pytest
import torch
from torch import Tensor

from tests.methods.hand import BASE, A, B, expect, m, run

SHAPE = (9, 7)


def tasks(n: int) -> list[Tensor]:
    return [torch.randn(SHAPE, generator=torch.Generator().manual_seed(i)) for i in range(n)]


def delta(name: str, models: list[Tensor], /, **given: object) -> Tensor:
    return run(name, torch.zeros_like(models[0]), models, **given)


def test_consensus_keeps_what_two_models_use() -> None:
    """T is [[5, -1], [-1, 3]], and only its -1 above is used by both, at 0.4.

    A: 1 < 0.4 * 4, 2 >= 0.4 * 1, 0 < 0.4 * 1, 4 >= 0.4 * 1.
    B: 4 >= 0.4 * 1, 1 >= 0.4 * 2, 1 >= 0.4 * 0, 1 < 0.4 * 4.
    """
    expect(run("consensus_ta", BASE, [A, B], lambda_=2.0), [[1, 0], [3, 4]])
    expect(run("consensus_ta", BASE, [A, B], k=1), [[6, 1], [2, 7]])


def test_a_model_of_its_own_mask_threshold_uses_less() -> None:
    given = {"mask_lambda": [0.4, 1.1], "k": 2}  # B: 1 < 1.1 * 2
    expect(run("consensus_ta", BASE, [A, B], **given), [[1, 2], [3, 4]])


def test_a_mask_is_the_one_that_brings_the_sum_nearest_to_its_task() -> None:
    """Equation 3: of all masks the one of least |m T - T_i|, which is that of lambda 1."""
    models = tasks(3)
    total = models[0] + models[1] + models[2]
    for i, model in enumerate(models):
        # no other model has a say: at 0 each uses all
        lambdas = [1.0 if j == i else 0.0 for j in range(3)]
        masked = delta("consensus_ta", models, mask_lambda=lambdas, k=3)
        best = torch.where((total - model).abs() <= model.abs(), total, 0.0)
        torch.testing.assert_close(masked, best)


def test_consensus_of_no_model_is_task_arithmetic() -> None:
    models = tasks(3)
    torch.testing.assert_close(
        delta("consensus_ta", models, k=0), models[0] + models[1] + models[2]
    )


def test_consensus_leaves_out_what_is_selfish_and_what_is_catastrophic() -> None:
    """One entry of one task, one that two share, and one of which each has less than it takes."""
    models = [m([[4, 3, 1]]), m([[0, 3, 1]]), m([[0, 0, 1]]), m([[0, 0, 1]])]
    expect(delta("consensus_ta", models), [[0, 6, 0]])


def test_more_votes_than_models_are_those_of_all() -> None:
    expect(delta("consensus_ta", [m([[2.0]])], k=2), [[2]])


def test_stitching_averages_where_regions_overlap() -> None:
    """Of four entries two: A's -2 and 4, B's 4 and, of three equal ones, the first."""
    merged = run("localize_and_stitch", BASE, [A, B], density=[0.5, 0.5])
    expect(merged, [[5, 1.5], [3, 8]])
    expect(
        run("localize_and_stitch", BASE, [A, B], density=[0.25, 0.5], lambda_=2.0),
        [[9, 4], [3, 12]],
    )


def test_regions_that_do_not_overlap_keep_their_models_entries() -> None:
    one, two = torch.zeros(SHAPE), torch.zeros(SHAPE)
    one[:2], two[5:7] = tasks(1)[0][:2], tasks(2)[1][5:7]
    merged = delta("localize_and_stitch", [one, two], density=[2 / 9, 2 / 9])
    assert torch.equal(merged, one + two)


def test_whole_regions_are_averaged() -> None:
    models = tasks(3)
    merged = delta("localize_and_stitch", models, density=[1.0] * 3)
    torch.testing.assert_close(merged, (models[0] + models[1] + models[2]) / 3)


def softmax(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    exponentials = [math.exp((v - low) / ((high - low) or 1.0)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def test_pcb_weighs_by_intra_and_inter_balance() -> None:
    """T_A = [1, -2, 0, 4], T_B = [4, 1, -1, -1]; the products that are normed are
    [1, 4, 0, 16], [16, 1, 1, 1] and [4, -2, 0, -4]."""
    a, b = [1.0, -2.0, 0.0, 4.0], [4.0, 1.0, -1.0, -1.0]

    def own(values: list[float]) -> list[float]:  # twice the exponent, as there are two tasks
        squares = [v * v for v in values]
        span = max(squares) - min(squares)
        exponentials = [math.exp(2 * (s - min(squares)) / span) for s in squares]
        return [e / sum(exponentials) for e in exponentials]

    crossed = softmax([x * y for x, y in zip(a, b, strict=True)])
    balance = [
        [o * (s + c) for o, s, c in zip(own(t), softmax([v * v for v in t]), crossed, strict=True)]
        for t in (a, b)
    ]
    mean = [(p * x + q * y) / (p + q) for p, q, x, y in zip(*balance, a, b, strict=True)]
    merged = run("pcb", BASE, [A, B], density=[1.0, 1.0])
    torch.testing.assert_close(merged, BASE + m([mean[:2], mean[2:]]), rtol=1e-5, atol=1e-5)
    # a quarter each: A's last and B's first are alone, and elsewhere the base is left
    assert [t.index(max(t)) for t in balance] == [3, 0]
    expect(run("pcb", BASE, [A, B], density=[0.25, 0.25], lambda_=0.5), [[3, 2], [3, 6]])


def test_pcb_drops_the_share_that_competes_worst() -> None:
    models = tasks(2)
    for density in (0.1, 0.5):
        kept = delta("pcb", models, density=[density] * 2) != 0
        assert int(density * 63) <= int(kept.sum()) <= 2 * int(density * 63)


def test_pcb_of_one_task_keeps_its_largest_entries_as_they_are() -> None:
    """Its balance grows with the square of an entry, so that it is TIES' trim."""
    (model,) = tasks(1)
    expected = run("ties", torch.zeros(SHAPE), [model], weight=[1.0], density=[0.3])
    torch.testing.assert_close(delta("pcb", [model], density=[0.3]), expected)


@pytest.mark.parametrize("scale", [1e-4, 10.0])
def test_pcb_does_not_change_with_the_scale_of_all_tasks(scale: float) -> None:
    models = tasks(3)
    one = delta("pcb", models, density=[0.4] * 3)
    other = delta("pcb", [scale * model for model in models], density=[0.4] * 3)
    torch.testing.assert_close(other, scale * one, rtol=1e-4, atol=1e-6)
