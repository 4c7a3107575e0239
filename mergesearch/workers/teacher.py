"""The teacher: the passes of learned coefficients, on a worker's live model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from mergesearch.engines import Engine, differentiable
from mergesearch.learning import (
    N_WRITTEN,
    Course,
    Curriculum,
    Lesson,
    ModelSlope,
    Portion,
    Subject,
    imitated,
    labelled,
    next_pass,
    prompted,
)
from mergesearch.logs import quiet
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass
from mergesearch.space import SearchSpace

if TYPE_CHECKING:
    from mergesearch.evaluation import Evaluator
    from mergesearch.merging import LiveModel

#: Lets an engine hold a recipe's model for a while.
Asked = Callable[[Recipe], AbstractContextManager[Engine]]


class Teacher:
    """Makes lessons of documents and prompts, and goes through them.

    Args:
        space: names the models.
        curriculum: what is learned, from what.
        subject: the recipe whose numbers are learned.
        evaluator: whose engine has gradients.
        portion: of a step that goes forward and backward at once.

    Raises:
        InputError: no tensor differs between the models.
    """

    def __init__(
        self,
        space: SearchSpace,
        curriculum: Curriculum,
        subject: Subject,
        evaluator: "Evaluator",
        portion: Portion,
    ) -> None:
        self._space = space
        self._curriculum = curriculum
        self._plan = subject.plan
        self._coefficients = subject.coefficients(curriculum.learned, space.granularity)
        self._evaluator = evaluator
        self._portion = portion
        #: Answers that parents gave for lessons.
        self._n_asked = 0
        #: Lessons of what a parent answers, by whose documents or prompts they are.
        self._imitated: dict[tuple[str, tuple[int | str, ...]], list[Lesson]] = {}

    def next_pass(
        self,
        course: Course,
        known: Sequence[Pass],
        experts: Mapping[str, str],
        asked: Asked,
        live: "LiveModel",
        progress: Callable[[int, int], None],
    ) -> Pass:
        """Go on with a trajectory by one pass, the live model lent to it.

        The arguments and errors are those of `Worker.learn`.
        """
        of = self._curriculum.of_pass(len(known) + 1)
        lessons, n_asked = self._lessons(of, experts, asked)
        with live.learnable(self._plan) as learnable:
            engine = differentiable(self._evaluator.engine)
            with quiet():
                engine.load(learnable.model)
            slope = ModelSlope(engine, learnable, self._plan, self._coefficients, self._portion)
            try:
                return next_pass(
                    course,
                    self._coefficients.start,
                    lessons,
                    slope,
                    self._coefficients.clamped,
                    known,
                    n_asked,
                    progress,
                )
            finally:
                engine.unload()

    def _lessons(
        self, of: Curriculum, experts: Mapping[str, str], asked: Asked
    ) -> tuple[list[Lesson], int]:
        """Make the lessons of a pass; and count what parents are asked for them."""
        if of.learned.loss == "labels":
            return [x for task, ids in of.documents for x in labelled(task, ids)], 0
        n_before = self._n_asked
        parents = self._space.parents
        lessons = [x for name in parents for x in self._imitations(name, of, experts, asked)]
        return lessons, self._n_asked - n_before

    def _imitations(
        self, name: str, of: Curriculum, experts: Mapping[str, str], asked: Asked
    ) -> list[Lesson]:
        """Make the lessons that imitate a parent, asked once for several passes."""
        makers: dict[tuple[str, tuple[int | str, ...]], Callable[..., list[Lesson]]] = {
            (task.id.task, ids): partial(imitated, task=task, doc_ids=ids)
            for task, ids in of.documents
            if experts[task.id.task] == name
        }
        if texts := of.prompts.get(name, ()):
            makers[name, texts] = partial(prompted, name=name, prompts=texts, n_tokens=N_WRITTEN)
        if new := [key for key in makers if key not in self._imitated]:
            with asked(self._space.soup([self._space.parents[name]])) as engine:
                for key in new:
                    self._imitated[key] = makers[key](differentiable(engine))
                    self._n_asked += len(self._imitated[key])
            self._n_asked += len(texts) if (name, texts) in new else 0  # which were written first
        return [lesson for key in makers for lesson in self._imitated[key]]
