"""Pools: workers that are lent one at a time."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mergesearch.learning import Course
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass
from mergesearch.scores import DocumentScore
from mergesearch.workers.base import Merged, Worker


class PoolClosed(Exception):
    """The pool was closed while a worker was asked: nothing came of it."""


class Pool(Protocol):
    """The workers of a run, each lent to one thread of the driver at a time."""

    @property
    def n_workers(self) -> int:
        """The most that can be lent at once."""

    def lend(self) -> AbstractContextManager[Worker]:
        """Lend whichever worker is idle until the block ends; waits for one.

        What is lent outlives the process that does the work: it asks another one if that dies.

        Raises:
            PoolClosed: the pool is closed.
            InputError: no worker is left.
        """

    def close(self) -> None:
        """End all workers, whatever they do: their callers get `PoolClosed`."""


class AnyWorker:
    """A `Worker` that has whoever is idle do each thing that it is asked.

    Args:
        pool: of the workers.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def name(self) -> str:
        """The worker, for people."""
        return "any worker"

    def digest(self, recipe: Recipe) -> str:
        """Return the hash of a recipe's tensors, which are not kept."""
        with self._pool.lend() as worker:
            return worker.digest(recipe)

    def merge(self, recipe: Recipe) -> Merged:
        """Merge a recipe."""
        with self._pool.lend() as worker:
            return worker.merge(recipe)

    def score(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        """Score documents of a task, by id."""
        with self._pool.lend() as worker:
            return worker.score(recipe, digest, fingerprint, doc_ids)

    def in_words(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, str]:
        """Ask about documents of a task for the answers themselves, by id."""
        with self._pool.lend() as worker:
            return worker.in_words(recipe, digest, fingerprint, doc_ids)

    def learn(
        self,
        course: Course,
        known: Sequence[Pass],
        experts: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> Pass:
        """Go on with a trajectory of learned coefficients by one pass."""
        with self._pool.lend() as worker:
            return worker.learn(course, known, experts, progress)
