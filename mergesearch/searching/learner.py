"""The learner: from points of trajectories to recipes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from mergesearch.errors import CandidateError
from mergesearch.learning import Course, Curriculum, Diverged, Subject, go_to
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass, PassesOf
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.observer import Observer
from mergesearch.space import LearnedPoint, SearchSpace

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask


class Learner:
    """Makes recipes of learned points.

    Threads may ask at once: a trajectory is gone through by one of them at a time.

    Args:
        space: names the models.
        curriculum: what is learned, from what.
        subject: the recipe whose numbers are learned.
        candidates: of the run; those of other workers may be given to `recipe`.
        observer: is told of each pass.

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
    ) -> None:
        self._space = space
        self._curriculum = curriculum
        self._learned = curriculum.learned
        self._candidates = candidates
        self._observer = observer
        self._subject = subject
        self.coefficients = subject.coefficients(curriculum.learned, space.granularity)
        #: Of the trajectories, by learning rate.
        self._locks: dict[float, Lock] = {}
        self._lock = Lock()

    def recipe(self, point: LearnedPoint, candidates: CandidateEvaluator | None = None) -> Recipe:
        """Make the recipe of a point; its trajectory goes on as far as that takes.

        Args:
            point: of a trajectory.
            candidates: of the worker that goes through it, and is charged.

        Raises:
            CandidateError: not even one pass has a finite loss, or no expert has a score.
            InputError: a pass cannot be kept.
        """
        with self._lock_of(point.learning_rate):
            one = self._pass(point, candidates or self._candidates)
        scales = {ref: point.scales.get(name, 1.0) for name, ref in self._space.parents.items()}
        return self.coefficients.recipe(self.coefficients.changed(one.values, point.pull, scales))

    def is_busy(self, point: LearnedPoint) -> bool:
        """Say if another thread goes through the trajectory of a point right now."""
        return self._lock_of(point.learning_rate).locked()

    def _lock_of(self, learning_rate: float) -> Lock:
        with self._lock:
            return self._locks.setdefault(learning_rate, Lock())

    def _pass(self, point: LearnedPoint, candidates: CandidateEvaluator) -> Pass:
        """Give a pass, or the last good one before it."""
        passes = self._passes(point.learning_rate)
        ended = passes.end
        course = Course(
            n_passes=self._learned.passes,
            batch=self._learned.batch,
            learning_rate=point.learning_rate,
            seed=self._space.search.seed,
        )
        further = partial(self._next, course, candidates)
        one = go_to(point.n_passes, passes, further, self._tell)
        if passes.end != ended:
            self._observer.stage(
                f"learning stops after pass {one.number} of {course.n_passes}, its last good one: "
                f"{passes.end}"
            )
        return one

    def _next(self, course: Course, candidates: CandidateEvaluator, known: Sequence[Pass]) -> Pass:
        """Go on with a trajectory by one pass."""
        of = self._curriculum.of_pass(len(known) + 1)
        experts = self._experts(candidates) if of.learned.loss == "parents" else {}
        self._observer.stage(self._what(of, course, len(known) + 1))
        try:
            one = candidates.worker.learn(course, known, experts, self._observer.learning)
        except Diverged as error:
            candidates.charge(error.n_answers)
            raise
        candidates.charge(one.n_answers)
        return one

    def _experts(self, candidates: CandidateEvaluator) -> Mapping[str, str]:
        """Find the parent that is imitated on each task, by the tasks' names."""
        of = self._curriculum.documents
        return {task.id.task: self._expert(task, candidates) for task, _ in of}

    def _expert(self, task: "BuiltTask", candidates: CandidateEvaluator) -> str:
        """Take the parent that the suite names, or the best by the search's own scores."""
        if task.spec.expert is not None:
            return task.spec.expert
        best: list[tuple[float, str]] = []
        for name, ref in self._space.parents.items():
            try:
                scores = candidates.score(self._space.soup([ref])).scores
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

    def _what(self, of: Curriculum, course: Course, number: int) -> str:
        """Say what is about to be learned, from what."""
        counts = {task.id.task: len(ids) for task, ids in of.documents}
        counts |= {name: len(texts) for name, texts in of.prompts.items()}
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
