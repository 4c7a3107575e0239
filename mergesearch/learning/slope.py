"""The loss of a merged model, and its gradient with respect to coefficients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.engines import DifferentiableEngine
from mergesearch.learning.coefficients import Coefficients
from mergesearch.learning.lessons import Lesson, losses
from mergesearch.learning.portion import Portion
from mergesearch.merging import LearnableModel, Plan


class ModelSlope:
    """A `Slope`: merges, goes forward and backward, and sums up by coefficient.

    Args:
        engine: holds the learnable model.
        learnable: is made of the plan.
        plan: of the template.
        coefficients: of that plan.
        portion: of a step.
    """

    def __init__(
        self,
        engine: DifferentiableEngine,
        learnable: LearnableModel,
        plan: Plan,
        coefficients: Coefficients,
        portion: Portion,
    ) -> None:
        self._engine = engine
        self._learnable = learnable
        self._plan = plan
        self._coefficients = coefficients
        self._portion = portion

    def __call__(self, values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
        """Compute the gradient of the weighted mean loss, and each lesson's loss."""
        arguments = self._coefficients.arguments(values)
        self._learnable.become(self._plan.with_arguments(arguments))
        whole = sum(lesson.weight for lesson in lessons)
        found: list[float] = []
        for start in range(0, len(lessons), self._portion.n_lessons):
            part = lessons[start : start + self._portion.n_lessons]
            with torch.enable_grad():
                of_part = losses(self._engine, part, checkpointing=self._portion.checkpointing)
                weights = of_part.new_tensor([lesson.weight / whole for lesson in part])
                (of_part * weights).sum().backward()
            found += of_part.detach().tolist()
        return self._coefficients.gradient(self._learnable.gradients()), found
