"""The optimiser's way, on losses that are known by hand."""

import math
import pickle
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from mergesearch.errors import CandidateError
from mergesearch.learning import Course, Diverged, Lesson, go_to, next_pass
from mergesearch.runs import Pass

COURSE = Course(n_passes=4, batch=4, learning_rate=0.1, seed=7)
LESSONS = [Lesson(task, 1.0, ()) for task in ("a", "a", "a", "a", "a", "b", "b", "b")]
TARGET = torch.tensor([0.3, 1.4], dtype=torch.float64)


def quadratic(values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
    loss = float((values - TARGET).square().sum())
    # the order of lessons counts, as it does for a real loss
    noise = 0.01 * sum(
        i * len(lesson.task + lesson.task * (lesson.task == "b"))
        for i, lesson in enumerate(lessons)
    )
    return 2 * (values - TARGET) + noise, [loss] * len(lessons)


class Memory:
    """A trajectory in memory."""

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.end: str | None = None
        self.n_answers = 0

    def known(self) -> Sequence[Pass]:
        return self.passes

    def add(self, one: Pass) -> None:
        self.passes.append(one)

    def set_end(self, reason: str, n_answers: int) -> None:
        self.end = reason
        self.n_answers = n_answers


def further(
    known: Sequence[Pass], slope: Callable[..., tuple[Tensor, list[float]]] = quadratic
) -> Pass:
    start = torch.ones(2, dtype=torch.float64)
    return next_pass(COURSE, start, LESSONS, slope, lambda x: x.clamp(0, 1.2), known)


def whole_way(go_on: Callable[[Sequence[Pass]], Pass] = further) -> list[Pass]:
    passes: list[Pass] = []
    while len(passes) < COURSE.n_passes:
        passes.append(go_on(passes))
    return passes


def test_it_goes_down_and_stays_in_its_range() -> None:
    passes = whole_way()
    losses = [one.losses["a"] for one in passes]
    assert losses == sorted(losses, reverse=True)
    assert passes[-1].values[1] <= 1.2
    assert [one.n_answers for one in passes] == [24] * 4
    assert [one.n_steps for one in passes] == [2, 4, 6, 8]
    assert set(passes[0].losses) == {"a", "b"}


def test_passes_of_any_size_are_one_way_of_adam() -> None:
    """Beside an optimiser that is never put away."""
    sizes = [3, 8, 1, 6]
    passes: list[Pass] = []
    start = torch.ones(2, dtype=torch.float64)
    moved = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=1.0)

    def slope(values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
        return 2 * (values - TARGET), [0.0] * len(lessons)

    for number, size in enumerate(sizes):
        passes.append(next_pass(COURSE, start, LESSONS[:size], slope, lambda x: x, passes))
        n_steps = math.ceil(size / COURSE.batch)
        for k in range(n_steps):
            peak = COURSE.learning_rate * (1 - number / COURSE.n_passes)
            optimizer.param_groups[0]["lr"] = peak * (1 + math.cos(math.pi * k / n_steps)) / 2
            moved.grad = 2 * (moved.detach() - TARGET)
            optimizer.step()
        assert torch.equal(passes[-1].values, moved.detach())


def test_the_learning_rate_falls_by_a_cosine_in_each_pass() -> None:
    steps: list[float] = []

    def constant(values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
        steps.append(float(values[0]))
        return torch.ones_like(values), [0.0] * len(lessons)

    start = torch.full((2,), 5.0, dtype=torch.float64)
    (*_, last) = whole_way(
        lambda known: next_pass(COURSE, start, LESSONS, constant, lambda x: x, known)
    )
    taken = [a - b for a, b in zip(steps, [*steps[1:], float(last.values[0])], strict=True)]
    # Adam's step along a constant slope is the learning rate
    peaks = [0.1, 0.075, 0.05, 0.025]
    expected = [p * share for p in peaks for share in (1, 0.5)]  # of two steps a pass
    assert taken == pytest.approx(expected, rel=1e-4)


def test_a_pass_is_gone_to_once() -> None:
    memory, told = Memory(), list[Pass]()
    assert go_to(2, memory, further, told.append).number == 2
    assert go_to(1, memory, further, told.append).number == 1
    assert go_to(4, memory, further, told.append).number == 4
    assert [one.number for one in told] == [1, 2, 3, 4]
    assert torch.equal(memory.passes[-1].values, whole_way()[-1].values)


def spoiled(after: int) -> Callable[..., tuple[Tensor, list[float]]]:
    """A slope that is NaN after so many steps."""
    n = 0

    def slope(values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
        nonlocal n
        n += 1
        gradient, losses = quadratic(values, lessons)
        return gradient * (math.nan if n > after else 1), losses

    return slope


def test_a_loss_that_turns_nan_ends_it_at_its_last_good_pass() -> None:
    memory = Memory()
    go_on = partial(further, slope=spoiled(after=5))
    assert go_to(4, memory, go_on, lambda _: None).number == 2
    assert memory.end == "a loss is NaN or infinite in pass 3, step 2"
    assert memory.n_answers == 3 * len(LESSONS)  # of both steps
    assert go_to(4, memory, go_on, lambda _: None).number == 2  # and it is not tried again
    assert len(memory.passes) == 2


def test_a_merged_value_that_is_none_ends_it_as_well() -> None:
    def slope(values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
        if float(values[0]) < 0.9:
            raise CandidateError("w: NaN or infinite")
        return quadratic(values, lessons)

    memory = Memory()
    last = go_to(4, memory, partial(further, slope=slope), lambda _: None)
    assert last.number == len(memory.passes) < 4
    assert memory.end is not None
    assert memory.end.startswith(f"w: NaN or infinite in pass {last.number + 1}, step ")


def test_divergence_may_be_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(Diverged("a loss is NaN", 12)))
    assert (str(error), error.n_answers) == ("a loss is NaN", 12)


def test_without_a_good_pass_there_is_no_candidate() -> None:
    with pytest.raises(CandidateError, match=r"pass 1, step 1; lower learned\.learning_rate"):
        go_to(4, Memory(), partial(further, slope=spoiled(after=0)), lambda _: None)
    with pytest.raises(Diverged):
        further([], slope=spoiled(after=0))
