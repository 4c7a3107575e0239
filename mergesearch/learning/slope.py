"""The loss of a merged model, and its gradient with respect to coefficients."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.engines import DifferentiableEngine
from mergesearch.errors import InputError
from mergesearch.learning.coefficients import Coefficients
from mergesearch.learning.lessons import Lesson, losses
from mergesearch.learning.portion import Portion
from mergesearch.merging import LearnableModel, Plan

log = logging.getLogger(__name__)


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
        """Compute the gradient of the weighted mean loss, and each lesson's loss.

        Raises:
            InputError: memory does not hold a lesson, or the model's class does not go backward.
        """
        while True:
            try:
                return self._at(values, lessons)
            except torch.OutOfMemoryError:
                self._lessen()
            except RuntimeError as error:  # what autograd finds in a class that writes in place
                reason = str(error).strip().splitlines()[0]
                raise InputError(
                    f"coefficients of a {self._name} cannot be learned, since transformers' class "
                    f"does not go backward ({reason}); leave learned out"
                ) from error

    def _at(self, values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, list[float]]:
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

    def _lessen(self) -> None:
        """Take smaller portions, from now on.

        Raises:
            InputError: there are none.
        """
        smaller = self._portion.smaller()
        if smaller is None:
            raise InputError(
                "the device's memory does not hold a step of learning from a single document; take "
                "another device, shorter prompts, or a smaller model"
            )
        log.warning("the device's memory is full: steps of learning are parted from now on")
        self._portion = smaller

    @property
    def _name(self) -> str:
        return type(self._learnable.model).__name__
