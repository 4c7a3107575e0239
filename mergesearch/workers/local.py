"""A worker in this process: one live model on one device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mergesearch.calibration import Calibrator, Computed
from mergesearch.learning import Course
from mergesearch.logs import quiet
from mergesearch.merging import LiveModel, Spread, digest_of
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass
from mergesearch.scores import DocumentScore
from mergesearch.workers.base import Merged, OtherTensorsError
from mergesearch.workers.teacher import Teacher

if TYPE_CHECKING:
    from mergesearch.engines import Engine
    from mergesearch.evaluation import Evaluator, Turn
    from mergesearch.tasks import BuiltTask


class LocalWorker:
    """A `Worker` that holds its model itself.

    >>> import torch
    >>> from pathlib import Path
    >>> from mergesearch import Evaluator, load_suite, open_parents, read_recipe
    >>> from mergesearch.parents import tokenizer_of
    >>> from mergesearch.workers import LocalWorker
    >>> parents = open_parents("models/base", {"one": "models/one"}, device="cpu")
    >>> evaluator = Evaluator(load_suite(Path("suite.yaml")), tokenizer_of(parents))
    >>> worker = LocalWorker(parents, evaluator, torch.device("cpu"))
    >>> text = "{merge_method: linear, models: [{model: one}], parameters: {weight: 1}}"
    >>> recipe, task = read_recipe(text), evaluator.tasks()[0]
    >>> digest = worker.merge(recipe).digest
    >>> sorted(worker.score(recipe, digest, task.id.fingerprint, [0, 1]))
    [0, 1]

    Args:
        parents: every model that a recipe may name.
        evaluator: the tasks, and the engine.
        device: where the live model runs.
        dtype: what it computes in; None leaves it to `LiveModel`.
        teacher: of the coefficients that are learned, if any are.
        spread: the devices where the model runs, if they are several.
        calibrator: of the statistics that merges look at, if any do.
    """

    def __init__(
        self,
        parents: Parents,
        evaluator: "Evaluator",
        device: torch.device,
        dtype: torch.dtype | None = None,
        teacher: Teacher | None = None,
        spread: Spread | None = None,
        calibrator: Calibrator | None = None,
    ) -> None:
        self._parents = parents
        self._evaluator = evaluator
        self._live = LiveModel(parents, device, dtype, spread)
        self._teacher = teacher
        self._calibrator = calibrator
        #: Of the live model, while it is what it was when it was last asked.
        self._turn: Turn | None = None

    @property
    def name(self) -> str:
        """The worker, for people."""
        return "this process"

    def digest(self, recipe: Recipe) -> str:
        """Return the hash of a recipe's tensors, which are not kept."""
        return digest_of(recipe, self._parents)

    def merge(self, recipe: Recipe) -> Merged:
        """Make the live model the recipe's."""
        self._rest()
        statistics: tuple[Computed, ...] = ()
        if recipe.statistics:
            if self._calibrator is None:
                raise ValueError("a worker without a calibrator computes no statistics")
            statistics = self._calibrator.prepare(recipe, self._live)
        digest = self._live.become(recipe)
        return Merged(digest, self._live.plan.n_entries, statistics)

    def statistics(self, key: str) -> Path:
        """Give the folder of statistics that a merge has looked at."""
        if self._calibrator is None:
            raise ValueError("a worker without a calibrator has no statistics")
        return self._calibrator.folder_of(key)

    def score(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        """Score documents of a task, by id."""
        self._become(recipe, digest)
        if self._turn is None:
            self._turn = self._evaluator.turn(self._live.model)
        return self._turn.score_documents(self._tasks[fingerprint], doc_ids)

    def in_words(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, str]:
        """Ask about documents of a task for the answers themselves, by id."""
        self._become(recipe, digest)
        task = self._tasks[fingerprint]
        with self._asked() as engine:
            return {i: task.answer(i, engine.answer(task.requests([i]))) for i in doc_ids}

    def learn(
        self,
        course: Course,
        known: Sequence[Pass],
        experts: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> Pass:
        """Go on with a trajectory of learned coefficients by one pass."""
        if self._teacher is None:
            raise ValueError("a worker without a teacher learns nothing")
        self._rest()
        return self._teacher.next_pass(course, known, experts, self.asked, self._live, progress)

    @contextmanager
    def asked(self, recipe: Recipe) -> Iterator["Engine"]:
        """Let the engine hold a recipe's model until the block ends.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights.
        """
        self.merge(recipe)
        with self._asked() as engine:
            yield engine

    @contextmanager
    def _asked(self) -> Iterator["Engine"]:
        self._rest()
        engine = self._evaluator.engine
        with quiet():
            engine.load(self._live.model)
            try:
                yield engine
            finally:
                engine.unload()

    def _become(self, recipe: Recipe, digest: str) -> None:
        if self._live.digest != digest and self.merge(recipe).digest != digest:
            raise OtherTensorsError(
                f"a model of {recipe.merge_method} candidate {recipe.hash[:12]} has changed since "
                "the run was made; set it back, or give --out another name"
            )

    def _rest(self) -> None:
        """Let the engine go of the live model, which is about to become another."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None

    @cached_property
    def _tasks(self) -> Mapping[str, "BuiltTask"]:
        """The tasks of all splits, by what tells their documents from others."""
        return {t.id.fingerprint: t for split in self._evaluator.built.values() for t in split}
