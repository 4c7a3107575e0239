"""Merges by regression and by Fisher information: closed forms, and cases by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mergesearch.methods import METHODS, apply
from mergesearch.methods.executor import Executor
from tests.methods.hand import expect, m

ROWS, COLUMNS, TOKENS = 6, 5, 40


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(
    name: str,
    models: Sequence[Tensor],
    statistics: Sequence[Tensor] = (),
    base: Tensor | None = None,
    **arguments: Any,
) -> Tensor:
    return apply(METHODS[name], base, models, statistics=lambda kind, i: statistics[i], **arguments)


MODELS = [randn(ROWS, COLUMNS, seed=seed) for seed in (1, 2, 3)]
INPUTS = [randn(TOKENS, COLUMNS, seed=seed) @ randn(COLUMNS, COLUMNS, seed=9) for seed in (4, 5, 6)]
GRAMS = [x.T @ x / TOKENS for x in INPUTS]


@pytest.mark.parametrize("name", ["regmean", "regmean_pp"])
def test_without_shrinkage_regmean_is_the_least_squares_solution(name: str) -> None:
    """Of the outputs of all models on their inputs, side by side."""
    weights = [1.0, 0.5, 2.0]
    x = torch.cat([w**0.5 * x for w, x in zip(weights, INPUTS, strict=True)])
    y = torch.cat([w**0.5 * x @ W.T for w, x, W in zip(weights, INPUTS, MODELS, strict=True)])
    solution = torch.linalg.lstsq(x.double(), y.double()).solution.T.float()
    merged = run(name, MODELS, GRAMS, weight=weights, alpha=1.0)
    torch.testing.assert_close(merged, solution, rtol=1e-4, atol=1e-4)


def test_shrinkage_multiplies_the_off_diagonals() -> None:
    alpha = 0.7
    shrunk = [alpha * g + (1 - alpha) * g.diagonal().diag() for g in GRAMS]
    whole = sum(W @ g for W, g in zip(MODELS, shrunk, strict=True))
    expected = whole @ torch.linalg.inv(sum(shrunk, torch.zeros_like(shrunk[0])))
    merged = run("regmean", MODELS, GRAMS, alpha=alpha)
    torch.testing.assert_close(merged, torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


def test_each_takes_the_channels_that_its_own_prompts_use() -> None:
    one, two = m([[1, 2], [3, 4]]), m([[5, 6], [7, 8]])
    grams = [m([[1, 0], [0, 0]]), m([[0, 0], [0, 4]])]
    expect(run("regmean", [one, two], grams, alpha=0.5), [[1, 6], [3, 8]])


def test_a_channel_that_no_prompt_uses_is_the_mean() -> None:
    one, two = m([[1, 2], [3, 4]]), m([[5, 6], [7, 8]])
    grams = [m([[1, 0], [0, 0]])] * 2
    expect(run("regmean", [one, two], grams, weight=[3.0, 1.0], alpha=1.0), [[2, 3], [4, 5]])


def test_another_shrinkage_or_ridge_decomposes_nothing_again() -> None:
    known: dict[object, Any] = {}
    n_computed = 0

    def memory(key: object, compute: Any) -> Any:
        nonlocal n_computed
        if key not in known:
            n_computed += 1
            known[key] = compute()
        return known[key]

    executor = Executor(memory=memory)
    base = torch.zeros(ROWS, COLUMNS)
    for value in (0.2, 0.5):
        run("regmean", MODELS, GRAMS, alpha=value, executor=executor)
        run("wudi", MODELS, base=base, ridge=value, executor=executor)
        run("bmm", MODELS, base=base, ridge=value, anchor=value, executor=executor)
    assert n_computed == 3
    run("regmean", MODELS, GRAMS, weight=[1.0, 1.0, 2.0], executor=executor)
    assert n_computed == 3  # weights of one candidate's own are not kept


TASKS = [m([[2, 0], [0, 0]]), m([[0, 0], [0, 3]])]
ZERO = torch.zeros(2, 2)


def test_wudi_adds_tasks_that_do_not_interfere() -> None:
    """Their Gram matrices, divided by the squared norms, are diag(1, 0) and diag(0, 1)."""
    expect(run("wudi", TASKS, base=ZERO, ridge=0.0), [[2, 0], [0, 3]])
    expect(run("wudi", TASKS, base=ZERO, ridge=1.0), [[1, 0], [0, 1.5]])
    expect(run("wudi", TASKS, base=ZERO, ridge=1.0, lambda_=2.0), [[2, 0], [0, 3]])


def test_wudi_keeps_what_tasks_share() -> None:
    """T, and T again: sum(T G) (sum G)^-1 = T."""
    task = m([[1, 2], [3, 5]])
    merged = run("wudi", [task, task], base=ZERO, ridge=0.0)
    torch.testing.assert_close(merged, task, rtol=1e-4, atol=1e-4)


def test_wudi_solves_its_normal_equation() -> None:
    grams = [t.T @ t / (t * t).sum() for t in MODELS]
    gram = sum(grams, torch.zeros(COLUMNS, COLUMNS))
    whole = sum((t @ g for t, g in zip(MODELS, grams, strict=True)), torch.zeros(ROWS, COLUMNS))
    ridge = 0.3 * gram.trace() / COLUMNS * torch.eye(COLUMNS)
    merged = run("wudi", MODELS, base=torch.zeros(ROWS, COLUMNS), ridge=0.3)
    torch.testing.assert_close(merged, whole @ torch.linalg.inv(gram + ridge), rtol=1e-4, atol=1e-4)


def spiked(seed: int) -> Tensor:
    """A task vector whose strongest direction hides all others from float32."""
    strong = torch.outer(randn(30, seed=7), 1 + 0.1 * randn(80, seed=8))
    return 0.01 * randn(30, 80, seed=seed) + strong


def test_a_weak_ridge_decides_what_lies_in_weak_directions() -> None:
    """In float32 these would be lost below n eps of the strongest, whatever the ridge."""
    models = [spiked(1), 1.1 * spiked(2)]
    tasks = [model.double() for model in models]
    grams = [t.T @ t / (t * t).sum() for t in tasks]
    gram = sum(grams, torch.zeros(80, 80).double())
    whole = sum((t @ g for t, g in zip(tasks, grams, strict=True)), torch.zeros(30, 80).double())
    for ridge in (1e-6, 1e-3):
        lifted = gram + ridge * gram.trace() / 80 * torch.eye(80)
        expected = whole @ torch.linalg.inv(lifted)
        merged = run("wudi", models, base=torch.zeros(30, 80), ridge=ridge)
        assert float((merged - expected).norm() / expected.norm()) < 1e-6


def test_a_channel_that_dwarfs_all_others_hides_none_of_them() -> None:
    """As massive activations of language models do."""
    outlier = 30 * torch.outer(randn(400, seed=2), randn(100, seed=3))
    x = (randn(400, 100, seed=1) + outlier).double()
    gram = (x.T @ x / 400).float()
    models = [randn(ROWS, 100, seed=seed) for seed in (4, 5)]
    grams = [gram, gram.diagonal().diag()]
    for alpha in (0.9, 0.999):
        shrunk = [alpha * g.double() + (1 - alpha) * g.double().diagonal().diag() for g in grams]
        whole = models[0].double() @ shrunk[0] + models[1].double() @ shrunk[1]
        expected = whole @ torch.linalg.inv(shrunk[0] + shrunk[1])
        merged = run("regmean", models, grams, alpha=alpha)
        assert float((merged - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("name", ["regmean", "bmm_data"])
def test_a_gram_matrix_that_is_not_finite_shows(name: str) -> None:
    base = torch.zeros(2, 2) if name == "bmm_data" else None
    merged = run(name, TASKS, [ZERO, torch.full((2, 2), torch.inf)], base)
    assert not torch.isfinite(merged).any()


@pytest.mark.parametrize("name", ["bmm", "bmm_data"])
def test_bmm_goes_from_the_regression_to_its_anchor(name: str) -> None:
    grams = [m([[1, 0], [0, 0]]), m([[0, 0], [0, 1]])]  # for both: those of the task vectors
    anchor = m([[1, 0], [0, 1.5]])
    expect(run(name, TASKS, grams, ZERO, ridge=0.0), [[2, 0], [0, 3]])
    # G = I / 2, so (I / 2 + 1 / 2)^-1 of TASKS' halves and half the anchor
    expect(run(name, TASKS, grams, ZERO, ridge=1.0), [[1.5, 0], [0, 2.25]])
    torch.testing.assert_close(
        run(name, TASKS, grams, ZERO, ridge=1e6), anchor, rtol=1e-4, atol=1e-4
    )
    expect(run(name, TASKS, grams, ZERO, ridge=1.0, anchor=0.0), [[1, 0], [0, 1.5]])


@pytest.mark.parametrize("name", ["regmean", "bmm_data"])
def test_tensors_without_statistics_take_the_mean(name: str) -> None:
    models = [m([[2, 4]]), m([[4, 8]])]
    known: Mapping[str, Any] = {"statistics": lambda kind, i: None}
    base = torch.zeros(1, 2) if name == "bmm_data" else None
    expect(apply(METHODS[name], base, models, weight=[1.0, 3.0], **known), [[3.5, 7]])


def test_fisher_weighs_entry_by_entry() -> None:
    """(4 + 3 * 8) / 4, and the mean where neither knows anything."""
    models, information = [m([[4, 4]]), m([[8, 8]])], [m([[1, 0]]), m([[3, 0]])]
    expect(run("fisher", models, information), [[7, 6]])
    expect(run("fisher", models, information, weight=[3.0, 1.0]), [[6, 5]])


def test_weights_of_zero_have_no_mean() -> None:
    with pytest.raises(ValueError, match="one weight must be above 0, got"):
        METHODS["regmean"].check({"weight": [0.0, 0.0]})
