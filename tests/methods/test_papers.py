"""What their papers say of the methods that mergekit does not have, on matrices small enough."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mergesearch.methods import METHODS, Inputs, apply
from mergesearch.methods.executor import Executor
from mergesearch.methods.subspace import _Svd
from tests.methods.cases import having

SVDS = ["tsv_m", "iso_c", "iso_cts"]
ROWS, COLUMNS = 16, 12
SVD = _Svd(ROWS, COLUMNS)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def delta(name: str, tasks: list[Tensor], **arguments: Any) -> Tensor:
    """What a method adds to a base of zeros."""
    return apply(METHODS[name], torch.zeros_like(tasks[0]), tasks, **arguments)


def close(actual: Tensor, expected: Tensor, within: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=within, atol=within)


def low_rank(seed: int, rank: int = 2) -> Tensor:
    return randn(ROWS, rank, seed=seed) @ randn(rank, COLUMNS, seed=seed + 100)


def apart(n: int, rank: int) -> list[Tensor]:
    """Tasks of that rank, whose left and right singular vectors are orthogonal to all others'."""
    left, _ = torch.linalg.qr(randn(ROWS, n * rank, seed=1))
    right, _ = torch.linalg.qr(randn(COLUMNS, n * rank, seed=2))
    values = torch.arange(1.0, 1 + n * rank)
    parts = [slice(i * rank, (i + 1) * rank) for i in range(n)]
    return [(left[:, part] * values[part]) @ right[:, part].T for part in parts]


def vectors(tasks: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The kept singular vectors and values of all tasks, side by side."""
    parts = [SVD(task, min(task.shape) // len(tasks)) for task in tasks]
    left, values, right = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
    return left, values, right


def interference(left: Tensor, values: Tensor, right: Tensor) -> float:
    """Singular task interference: |(UᵀU - I) S (VᵀV - I)|_1."""
    eye = torch.eye(len(values))
    return float(((left.T @ left - eye) @ values.diag() @ (right.T @ right - eye)).abs().sum())


def test_tsv_m_sums_tasks_that_do_not_interfere() -> None:
    tasks = apart(3, rank=4)
    assert interference(*vectors(tasks)) < 1e-3
    close(delta("tsv_m", tasks), tasks[0] + tasks[1] + tasks[2])


def test_tsv_m_takes_the_interference_out_of_tasks_that_overlap() -> None:
    tasks = [randn(ROWS, COLUMNS, seed=i) for i in range(3)]
    left, values, right = vectors(tasks)
    assert interference(left, values, right) > 1
    u, v = SVD.orthogonal(left), SVD.orthogonal(right)
    close(u.T @ u, torch.eye(12))
    close(v.T @ v, torch.eye(12))
    assert interference(u, values, v) < 1e-6
    merged = delta("tsv_m", tasks)
    close(merged, (u * values) @ v.T)
    # orthonormal vectors on both sides: the singular values are the tasks' own
    close(torch.linalg.svdvals(merged), values.sort(descending=True).values)


def test_orthogonalising_gives_the_nearest_matrix_with_orthonormal_columns() -> None:
    """No other one is nearer: of many, and of itself turned a little."""
    columns = randn(ROWS, 5, seed=3)
    nearest = SVD.orthogonal(columns)
    best = float((columns - nearest).norm())
    for seed in range(50):
        turned, _ = torch.linalg.qr(nearest + 0.05 * randn(ROWS, 5, seed=seed))
        turned = turned * (turned * nearest).sum(0).sign()
        assert float((columns - turned).norm()) > best


def test_iso_c_makes_the_spectrum_of_the_sum_flat_and_keeps_its_norm_and_its_subspaces() -> None:
    tasks = [randn(ROWS, COLUMNS, seed=i) for i in range(3)]
    total = tasks[0] + tasks[1] + tasks[2]
    before, merged = torch.linalg.svdvals(total), delta("iso_c", tasks)
    after = torch.linalg.svdvals(merged)
    close(after, before.mean().expand(COLUMNS))
    assert float(after.sum()) == pytest.approx(float(before.sum()), rel=1e-5)  # nuclear norm
    left, _, right = torch.linalg.svd(total, full_matrices=False)
    close(left @ (left.T @ merged), merged)
    # U Vᵀ is the polar factor: what is left of it is symmetric and positive
    close(left.T @ merged @ right.T, before.mean() * torch.eye(COLUMNS))


@pytest.mark.parametrize("common", [0.5, 0.8, 1.0])
def test_iso_cts_has_a_flat_spectrum_of_as_many_directions_as_there_are(common: float) -> None:
    """Of 12 directions 6 or 9 or 12 are common; of the rest 2 tasks have 3 or 1 or none each."""
    tasks = [randn(ROWS, COLUMNS, seed=i) for i in range(2)]
    shared = int(common * COLUMNS)
    own = (COLUMNS - shared) // 2
    values = torch.linalg.svdvals(delta("iso_cts", tasks, common=common))
    rank = shared + 2 * own
    close(values[:rank], values[0].expand(rank))
    close(values[rank:], torch.zeros(COLUMNS - rank))


def test_iso_cts_flattens_to_the_mean_of_common_and_own_singular_values() -> None:
    tasks = [randn(ROWS, COLUMNS, seed=i) for i in range(2)]
    left, values, _ = torch.linalg.svd(tasks[0] + tasks[1], full_matrices=False)
    common = left[:, :6]
    own = [torch.linalg.svdvals(t - common @ (common.T @ t))[:3] for t in tasks]
    mean = torch.cat([values[:6], *own]).mean()
    merged = delta("iso_cts", tasks, common=0.5)
    assert float(torch.linalg.matrix_norm(merged, 2)) == pytest.approx(float(mean), rel=1e-4)


def test_iso_cts_has_the_direction_of_one_task_that_common_ones_leave_out() -> None:
    """Both tasks share six strong directions; of two weak ones each has one to itself."""
    left, _ = torch.linalg.qr(randn(ROWS, 8, seed=1))
    right, _ = torch.linalg.qr(randn(COLUMNS, 8, seed=2))
    strong = 5 * left[:, :6] @ right[:, :6].T
    tasks = [strong + torch.outer(left[:, i], right[:, i]) for i in (6, 7)]
    common, values, right_common = SVD(tasks[0] + tasks[1], 6)
    iso_c = values.mean() * common @ right_common.T  # of as many common directions
    merged = delta("iso_cts", tasks, common=0.5)
    mean = (6 * 10 + 1 + 1) / 8
    close(merged, mean * left @ right.T)
    for i in (6, 7):
        assert float(left[:, i] @ merged @ right[:, i]) == pytest.approx(mean, rel=1e-4)
        assert float((left[:, i] @ iso_c).norm()) < 1e-4


@pytest.mark.parametrize("name", SVDS)
def test_no_direction_is_invented_outside_of_low_rank_task_vectors(name: str) -> None:
    tasks = [low_rank(0), low_rank(1)]
    merged = delta(name, tasks)
    columns = torch.linalg.svd(torch.cat(tasks, dim=1), full_matrices=False).U[:, :4]
    rows = torch.linalg.svd(torch.cat(tasks, dim=0), full_matrices=False).Vh[:4].T
    assert float(merged.norm()) > 1
    close(columns @ (columns.T @ merged), merged, within=1e-3)
    close(merged @ rows @ rows.T, merged, within=1e-3)


@pytest.mark.parametrize("name", SVDS)
def test_models_of_low_rank_that_are_identical_get_no_new_direction(name: str) -> None:
    task = low_rank(0)
    merged = delta(name, [task, task.clone()])
    assert int(torch.linalg.matrix_rank(merged, rtol=1e-4)) == 2
    if name == "tsv_m":
        close(merged, task)


@pytest.mark.parametrize("name", SVDS)
def test_models_without_any_change_leave_the_base(name: str) -> None:
    base = randn(ROWS, COLUMNS)
    assert torch.equal(apply(METHODS[name], base, [base.clone(), base.clone()]), base)


@pytest.mark.parametrize("name", SVDS)
def test_lambda_changes_no_decomposition(name: str) -> None:
    """One tensor is recalled, and a candidate is one pass."""
    asked: list[object] = []

    def memory(key: object, compute: object) -> Any:
        asked.append(key)
        return torch.ones(ROWS, COLUMNS)

    base = randn(ROWS, COLUMNS)
    formula = METHODS[name].formula
    own = {"common": 0.8} if name == "iso_cts" else {}
    for scale in (0.5, 2.0):
        inputs = Inputs.of(base, [low_rank(0)], ids=("b", "m"), executor=Executor(memory=memory))
        (_, merged), *_ = inputs.values(formula(inputs, lambda_=scale, **own))
        close(merged, base + scale)
    assert len(asked) == 2
    assert len(set(asked)) == 1


def test_magmax_takes_the_largest_change_with_its_sign() -> None:
    tasks = [randn(ROWS, COLUMNS, seed=i) for i in range(3)]
    stack = torch.stack(tasks)
    largest = stack.abs().max(0)
    merged = delta("magmax", tasks, lambda_=1.0)
    assert torch.equal(merged.abs(), largest.values)
    assert torch.equal(merged, stack.gather(0, largest.indices[None])[0])
    assert torch.equal(delta("magmax", tasks[:1], lambda_=1.0), tasks[0])


def crossover(t: float, split: float, **fields: Any) -> Tensor:
    return apply(METHODS["crossover"], randn(3, 4), [randn(3, 4, seed=1)], t=t, split=split,
                 **fields)  # fmt: skip


def slerp(t: float) -> Tensor:
    return apply(METHODS["slerp"], randn(3, 4), [randn(3, 4, seed=1)], t=t)


def test_a_crossover_is_slerp_at_t_before_its_split_and_at_one_minus_t_after_it() -> None:
    assert torch.equal(crossover(0.3, 1.0, flat_range=(0, 12)), slerp(0.3))
    assert torch.equal(crossover(0.3, 0.0, flat_range=(0, 12)), slerp(1 - 0.3))
    for point in range(13):
        merged = crossover(0.3, point / 12, flat_range=(0, 12)).flatten()
        assert torch.equal(merged[:point], slerp(0.3).flatten()[:point])
        assert torch.equal(merged[point:], slerp(0.7).flatten()[point:])


def test_a_crossover_splits_the_model_and_not_each_tensor() -> None:
    """The model has 40 entries, split at its 20th; the tensor begins at the 15th or after it."""
    for start, point in ((15, 5), (0, 12), (8, 12), (9, 11), (20, 0), (28, 0)):
        merged = crossover(0.3, 0.5, flat_range=(start, 40)).flatten()
        assert torch.equal(merged[:point], slerp(0.3).flatten()[:point]), start
        assert torch.equal(merged[point:], slerp(0.7).flatten()[point:]), start


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "magmax", *SVDS])
@pytest.mark.parametrize("further", [-0.5, 0.3, 1.0])
def test_a_lambda_of_one_and_more_extrapolates(name: str, further: float) -> None:
    """ExPO: merged + a (merged - W0)."""
    base, models = randn(8, 6), [randn(8, 6, seed=i) for i in (1, 2)]
    arguments: dict[str, Any] = {"weight": [0.6, 0.5]} if name in having("weight") else {}
    if name == "ties":
        arguments["density"] = [0.5, 0.7]
    merged, beyond = (
        apply(METHODS[name], base, models, lambda_=scale, **arguments)
        for scale in (1.0, 1.0 + further)
    )
    close(beyond, merged + further * (merged - base), within=1e-5)
