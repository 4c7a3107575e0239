"""An optimiser's way through coefficients, pass by pass."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mergesearch.errors import CandidateError
from mergesearch.learning.curriculum import ANSWERS
from mergesearch.learning.lessons import Lesson, interleaved
from mergesearch.runs import Pass


class Passes(Protocol):
    """A memory of one trajectory."""

    def known(self) -> Sequence[Pass]:
        """Give the passes so far, in order."""

    def add(self, one: Pass) -> None:
        """Keep a pass; it is safe when this returns."""

    @property
    def end(self) -> str | None:
        """The reason for which there are no more; None where there may be."""

    def set_end(self, reason: str, n_answers: int) -> None:
        """Keep the reason for which there will be no more.

        Args:
            reason: for people.
            n_answers: that the pass took which came to nothing.
        """


class Slope(Protocol):
    """The loss at some coefficients, and its gradient."""

    def __call__(self, values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
        """Compute the gradient of the weighted mean loss, and each lesson's loss.

        Args:
            values: float64 (coefficients,).
            lessons: of one step.
        """


@dataclass(frozen=True)
class Course:
    """The settings of a trajectory."""

    n_passes: int
    #: Lessons of a step.
    batch: int
    learning_rate: float
    seed: int


class Diverged(Exception):
    """A loss, a gradient or a merged value is NaN or infinite.

    Args:
        reason: what is, and where.
        n_answers: that the pass took until then.
    """

    def __init__(self, reason: str, n_answers: int) -> None:
        super().__init__(reason, n_answers)  # both, so that it may be sent to another process
        self.reason = reason
        self.n_answers = n_answers

    def __str__(self) -> str:
        return self.reason


def next_pass(
    course: Course,
    start: Tensor,
    lessons: Sequence[Lesson],
    slope: Slope,
    clamped: Callable[[Tensor], Tensor],
    known: Sequence[Pass] = (),
    n_asked: int = 0,
    progress: Callable[[int, int], None] = lambda done, most: None,
) -> Pass:
    """Go on with a trajectory by one pass: Adam, its rate falling by a cosine.

    Adam is that of arXiv:1412.6980, and the rate that starts again with each pass, here from a
    lower peak, that of SGDR (arXiv:1608.03983): so the end of every pass is a place of rest, and a
    candidate.

    Each pass has an order of its own, which follows from the seed and the number of the pass: so a
    trajectory that was interrupted goes on as if it had not been.

    Args:
        course: the settings.
        start: the coefficients before the first pass, float64 (coefficients,).
        lessons: what this pass learns from.
        slope: gives losses and gradients.
        clamped: brings coefficients into their ranges.
        known: the passes before this one.
        n_asked: answers that preparing the lessons took.
        progress: is told after each step how many lessons are done, of how many in all passes.

    Raises:
        Diverged: a loss, a gradient or a merged value is NaN or infinite.
    """
    began, number = time.perf_counter(), len(known) + 1
    values = (known[-1].values if known else start).clone().requires_grad_()
    optimizer = torch.optim.Adam([values], lr=course.learning_rate)
    if known:
        first, second = (moment.clone() for moment in known[-1].moments)
        step = torch.tensor(float(known[-1].n_steps))
        optimizer.state[values] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    peak = course.learning_rate * (1 - (number - 1) / course.n_passes)
    order = _ordered(lessons, course.seed, number)
    n_steps = math.ceil(len(order) / course.batch)
    seen: list[float] = []
    for k in range(n_steps):
        optimizer.param_groups[0]["lr"] = peak * _cosine(k / n_steps)
        batch = order[k * course.batch : (k + 1) * course.batch]
        try:
            gradient, found = slope(values.detach(), batch)
            if not (bool(gradient.isfinite().all()) and all(map(math.isfinite, found))):
                raise CandidateError("a loss is NaN or infinite")
        except CandidateError as error:  # a merged value may be none as well
            n_answers = ANSWERS * (len(seen) + len(batch)) + n_asked
            raise Diverged(f"{error} in pass {number}, step {k + 1}", n_answers) from None
        values.grad = gradient
        optimizer.step()
        with torch.no_grad():
            values.copy_(clamped(values))
        seen += found
        progress((number - 1) * len(order) + len(seen), course.n_passes * len(order))
    state = optimizer.state[values]
    return Pass(
        number=number,
        values=values.detach().clone(),
        losses=_by_task(lessons, order, seen),
        n_answers=ANSWERS * len(lessons) + n_asked,
        n_steps=int(state["step"]),
        seconds=time.perf_counter() - began,
        moments=(state["exp_avg"].clone(), state["exp_avg_sq"].clone()),
    )


def go_to(
    number: int,
    passes: Passes,
    further: Callable[[Sequence[Pass]], Pass],
    told: Callable[[Pass], None],
) -> Pass:
    """Give a pass of a trajectory, gone through as far as that takes.

    Where it ended before, on a number that is not finite, its last good pass is given.

    Args:
        number: of the pass, from 1.
        passes: keeps the trajectory.
        further: gives the pass behind those that are known.
        told: hears of each new pass.

    Raises:
        CandidateError: not even one pass has a finite loss.
    """
    known = list(passes.known())
    while len(known) < number and passes.end is None:
        try:
            one = further(known)
        except Diverged as error:
            passes.set_end(error.reason, error.n_answers)
        else:
            passes.add(one)
            told(one)
            known.append(one)
    if not known:
        raise CandidateError(
            f"learning has no good pass: {passes.end}; lower learned.learning_rate"
        )
    return known[min(number, len(known)) - 1]


def _cosine(share: float) -> float:
    """Fall from 1 to 0 as a share goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * share))


def _by_task(
    lessons: Sequence[Lesson], order: Sequence[Lesson], seen: Sequence[float]
) -> dict[str, float]:
    """Average losses by task, the tasks in the order of the lessons."""
    found: dict[str, list[float]] = {lesson.task: [] for lesson in lessons}
    for lesson, loss in zip(order, seen, strict=True):
        found[lesson.task].append(loss)
    return {task: sum(of) / len(of) for task, of in found.items()}


def _ordered(lessons: Sequence[Lesson], seed: int, number: int) -> list[Lesson]:
    generator = torch.Generator().manual_seed(1_000_003 * seed + number)
    return interleaved(lessons, generator)
