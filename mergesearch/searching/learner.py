"""The learner: from points of trajectories to recipes."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from mergesearch.engines import differentiable
from mergesearch.errors import CandidateError
from mergesearch.learning import (
    N_WRITTEN,
    Coefficients,
    Course,
    Curriculum,
    Lesson,
    ModelSlope,
    Portion,
    Subject,
    go_to,
    imitated,
    labelled,
    next_pass,
    prompted,
)
from mergesearch.logs import quiet
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass, PassesOf
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.observer import Observer
from mergesearch.space import LearnedPoint, SearchSpace

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask


class Learner:
    """Makes recipes of learned points.

    Args:
        space: names the models.
        curriculum: what is learned, from what.
        subject: the recipe whose numbers are learned.
        candidates: merges, and asks parents.
        observer: is told of each pass.
        portion: of a step that goes forward and backward at once.

    Raises:
        InputError: no tensor differs between the models.
    """

    def __init__(
        self,
        space: SearchSpace,
        curriculum: Curriculum,
        subject: Subject,
        candidates: CandidateEvaluator,
        observer: Observer,
        portion: Portion,
    ) -> None:
        self._space = space
        self._curriculum = curriculum
        self._learned = learned = curriculum.learned
        self._candidates = candidates
        self._observer = observer
        self._portion = portion
        #: Answers that parents gave for lessons.
        self._n_asked = 0
        #: Lessons of what a parent answers, by whose documents or prompts they are.
        self._imitated: dict[tuple[str, tuple[int | str, ...]], list[Lesson]] = {}
        self._subject = subject
        self.coefficients = Coefficients(
            subject.template, subject.plan, subject.routes, learned, space.granularity
        )

    def recipe(self, point: LearnedPoint) -> Recipe:
        """Make the recipe of a point; its trajectory goes on as far as that takes.

        Raises:
            CandidateError: not even one pass has a finite loss, or no expert has a score.
            InputError: a pass cannot be kept.
        """
        one = self._pass(point)
        scales = {ref: point.scales.get(name, 1.0) for name, ref in self._space.parents.items()}
        return self.coefficients.recipe(self.coefficients.changed(one.values, point.pull, scales))

    def _pass(self, point: LearnedPoint) -> Pass:
        """Give a pass, or the last good one before it."""
        passes = self._passes(point.learning_rate)
        ended = passes.end
        course = Course(
            n_passes=self._learned.passes,
            batch=self._learned.batch,
            learning_rate=point.learning_rate,
            seed=self._space.search.seed,
        )
        one = go_to(point.n_passes, passes, partial(self._next, course), self._tell)
        if passes.end != ended:
            self._observer.stage(
                f"learning stops after pass {one.number} of {course.n_passes}, its last good one: "
                f"{passes.end}"
            )
        return one

    def _next(self, course: Course, known: Sequence[Pass]) -> Pass:
        """Go on with a trajectory by one pass, the live model lent to it."""
        lessons, n_asked = self._lessons(self._curriculum.of_pass(len(known) + 1))
        self._observer.stage(self._what(lessons, course, len(known) + 1))
        plan = self._subject.plan
        with self._candidates.learnable(plan) as learnable:
            engine = differentiable(self._candidates.evaluator.engine)
            with quiet():
                engine.load(learnable.model)
            slope = ModelSlope(engine, learnable, plan, self.coefficients, self._portion)
            try:
                return next_pass(
                    course,
                    self.coefficients.start,
                    lessons,
                    slope,
                    self.coefficients.clamped,
                    known,
                    n_asked,
                    self._observer.learning,
                )
            finally:
                engine.unload()

    def _lessons(self, of: Curriculum) -> tuple[list[Lesson], int]:
        """Make the lessons of a pass; and count what parents are asked for them."""
        if of.learned.loss == "labels":
            return [x for task, ids in of.documents for x in labelled(task, ids)], 0
        n_before = self._n_asked
        lessons = [x for name in self._space.parents for x in self._imitations(name, of)]
        return lessons, self._n_asked - n_before

    def _imitations(self, name: str, of: Curriculum) -> list[Lesson]:
        """Make the lessons that imitate a parent, asked once for several passes."""
        makers: dict[tuple[str, tuple[int | str, ...]], Callable[..., list[Lesson]]] = {
            (task.id.task, ids): partial(imitated, task=task, doc_ids=ids)
            for task, ids in of.documents
            if self._experts[task.id.task] == name
        }
        if texts := of.prompts.get(name, ()):
            makers[name, texts] = partial(prompted, name=name, prompts=texts, n_tokens=N_WRITTEN)
        if new := [key for key in makers if key not in self._imitated]:
            with self._candidates.asked(self._space.soup([self._space.parents[name]])):
                engine = differentiable(self._candidates.evaluator.engine)
                for key in new:
                    self._imitated[key] = makers[key](engine)
                    self._n_asked += len(self._imitated[key])
            self._n_asked += len(texts) if (name, texts) in new else 0  # which were written first
        return [lesson for key in makers for lesson in self._imitated[key]]

    @cached_property
    def _experts(self) -> Mapping[str, str]:
        """The parent that is imitated on each task, by the tasks' names."""
        return {task.id.task: self._expert(task) for task, _ in self._curriculum.documents}

    def _expert(self, task: "BuiltTask") -> str:
        """Take the parent that the suite names, or the best by the search's own scores."""
        if task.spec.expert is not None:
            return task.spec.expert
        best: list[tuple[float, str]] = []
        for name, ref in self._space.parents.items():
            try:
                scores = self._candidates.score(self._space.soup([ref])).scores
            except CandidateError:  # one without a score is no expert
                continue
            value = next(s.value for s in scores.tasks if s.id == task.id)
            best.append((value if task.id.higher_is_better else -value, name))
        if not best:
            raise CandidateError("no parent has a score, so there is none to imitate")
        return max(best, key=lambda pair: pair[0])[1]

    def _passes(self, learning_rate: float) -> PassesOf:
        """Open the memory of a trajectory."""
        learned, folder = self._learned, self._candidates.record.folder
        about = {
            # relative, so that a run and its models can be moved together
            "template": self._subject.template.with_paths(lambda ref: ref.relative(folder)).hash,
            "learned": learned.model_dump(mode="json", exclude={"pull", "scale", "learning_rate"}),
            "learning_rate": learning_rate,
            "seed": self._space.search.seed,
            "lessons": self._curriculum.identity,
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        label = f"{learned.of} by {learned.granularity}, learning rate {learning_rate:g}"
        return PassesOf(self._candidates.record, key, label, self._curriculum.searched)

    def _what(self, lessons: Sequence[Lesson], course: Course, number: int) -> str:
        """Say what is about to be learned, from what."""
        counts = Counter(lesson.task for lesson in lessons)
        documents = ", ".join(f"{n} of {name}" for name, n in counts.items())
        return (
            f"learning {len(self.coefficients)} coefficients of {self._learned.of} from "
            f"{documents}, by {self._learned.loss}: pass {number} of {course.n_passes}"
        )

    def _tell(self, one: Pass) -> None:
        n_left = self._learned.passes - one.number
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in one.losses.items())
        left = f", {one.seconds * n_left:.0f} s left" if n_left else ""
        self._observer.stage(
            f"pass {one.number}/{self._learned.passes}  loss {losses}  {one.seconds:.1f} s{left}"
        )
