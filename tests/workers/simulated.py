"""Workers that score by a recipe's hash in no time, or as long as they are told to take."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mergesearch.evaluation import Evaluator
from mergesearch.learning import Course
from mergesearch.parents import Parents, load_tokenizer
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass, Record
from mergesearch.scores import DocumentScore
from mergesearch.searching import CandidateEvaluator
from mergesearch.space import SearchSpace
from mergesearch.workers import AnyWorker, Merged, PoolClosed, Worker


class SimulatedWorker:
    """Has a digest and scores for each recipe, that follow from its hash.

    Args:
        name: for people.
        seconds: that all blocks of a candidate take together.
        before: is called before anything is scored, and may raise or wait.
    """

    def __init__(
        self, name: str, seconds: float = 0.0, before: Callable[[Recipe], None] | None = None
    ) -> None:
        self.name = name
        self.seconds = seconds
        self.before = before
        #: What it scored, document by document.
        self.scored: list[tuple[str, str, int]] = []
        self.busy_seconds = 0.0
        self._last = ""

    def digest(self, recipe: Recipe) -> str:
        return recipe.hash

    def merge(self, recipe: Recipe) -> Merged:
        return Merged(recipe.hash, 1000)

    def score(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        assert digest == recipe.hash
        if self.before is not None:
            self.before(recipe)
        if self._last != digest:
            self._last = digest
            time.sleep(self.seconds)
            self.busy_seconds += self.seconds
        self.scored += [(digest, fingerprint, i) for i in doc_ids]
        skill = _draw(digest)
        return {i: DocumentScore(float(_draw(f"{digest}{i}") < skill)) for i in doc_ids}

    def in_words(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, str]:
        return {i: f"{digest[:6]} on {i}" for i in doc_ids}

    def learn(
        self,
        course: Course,
        known: Sequence[Pass],
        experts: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> Pass:
        raise NotImplementedError


class SimulatedPool:
    """A `Pool` of workers in threads of this process."""

    def __init__(self, workers: Sequence[SimulatedWorker]) -> None:
        self.workers = workers
        self._idle = list(workers)
        self._changed = threading.Condition()
        self.closed = False

    @property
    def n_workers(self) -> int:
        return len(self.workers)

    @contextmanager
    def lend(self) -> Iterator[Worker]:
        with self._changed:
            while not self._idle:
                if self.closed:
                    raise PoolClosed
                self._changed.wait(0.1)
            if self.closed:
                raise PoolClosed
            worker = self._idle.pop()
        try:
            yield worker
        finally:
            with self._changed:
                self._idle.append(worker)
                self._changed.notify()

    def close(self) -> None:
        self.closed = True


def simulated(
    folder: Path, space: SearchSpace, workers: Sequence[SimulatedWorker]
) -> CandidateEvaluator:
    """What scores the candidates of a space by simulated workers; its run is in `folder`."""
    assert space.base is not None
    evaluator = Evaluator(space.load_suite(), load_tokenizer(Path(str(space.base))))
    folder.mkdir(exist_ok=True)
    pool = SimulatedPool(workers)
    parents = Parents(space.models)
    return CandidateEvaluator(parents, evaluator, Record(folder), AnyWorker(pool), pool)


def _draw(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
