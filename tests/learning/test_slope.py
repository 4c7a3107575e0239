"""Slopes: what is done where a step fails."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mergesearch.errors import InputError
from mergesearch.learning import Lesson, ModelSlope, Portion, slope

LESSONS = [Lesson("t", 1.0, ()) for _ in range(5)]


class Model(nn.Module):
    """Is made of one coefficient, and remembers its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.model = self
        self.leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def become(self, plan: Any) -> None:
        self.leaf = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def gradients(self) -> Any:
        return self.leaf.grad


def sloped(portion: Portion) -> tuple[ModelSlope, Model]:
    model = Model()
    plan = SimpleNamespace(with_arguments=lambda arguments: None)
    coefficients = SimpleNamespace(
        arguments=lambda values: {}, gradient=lambda gradients: gradients
    )
    made = ModelSlope(cast(Any, None), cast(Any, model), cast(Any, plan), coefficients, portion)  # type: ignore[arg-type]
    return made, model


def test_a_step_that_fills_the_memory_is_done_again_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, bool]] = []
    made, model = sloped(Portion(5))

    def losses(engine: Any, part: Sequence[Lesson], *, checkpointing: bool) -> Tensor:
        asked.append((len(part), checkpointing))
        if len(part) > 1 and len(asked) != 2:  # the second part fills it as well
            raise torch.OutOfMemoryError
        return model.leaf.expand(len(part)) * 2

    monkeypatch.setattr(slope, "losses", losses)
    gradient, found = made(torch.zeros(1), LESSONS)
    assert asked == [(5, False), (3, False), (2, False), (2, False), *[(1, False)] * 5]
    assert found == [2.0] * 5
    assert float(gradient) == pytest.approx(2.0)  # of the last try alone


def test_a_memory_that_holds_no_lesson_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def losses(engine: Any, part: Sequence[Lesson], *, checkpointing: bool) -> Tensor:
        tried.append(checkpointing)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(slope, "losses", losses)
    with pytest.raises(InputError, match="does not hold a step of learning from a single"):
        sloped(Portion(2))[0](torch.zeros(1), LESSONS)
    assert tried == [False, False, True]


def test_a_class_without_a_gradient_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made, model = sloped(Portion())

    def losses(engine: Any, part: Sequence[Lesson], *, checkpointing: bool) -> Tensor:
        values = model.leaf.exp()
        kept = values.square()
        values += 1  # which the square still needs
        return kept

    monkeypatch.setattr(slope, "losses", losses)
    with pytest.raises(InputError) as caught:
        made(torch.zeros(1), LESSONS)
    assert str(caught.value).startswith("coefficients of a Model cannot be learned, since ")
    assert "\n" not in str(caught.value)
