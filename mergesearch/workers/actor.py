"""The actor: a worker in a process of Ray's."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from mergesearch.learning import Course
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass
from mergesearch.scores import DocumentScore
from mergesearch.workers.base import Merged
from mergesearch.workers.local import LocalWorker

#: Makes the worker of an actor, given the workers that share its host, itself included.
Start = Callable[[int], LocalWorker]


class Actor:
    """A worker in a process of its own, with the methods of a `Worker`."""

    def __init__(self, start: Start, n_sharing: int) -> None:
        self._worker = start(n_sharing)

    def where(self) -> tuple[str, str]:
        """Return the node's id, and the host and process for people."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return node, f"{ray.util.get_node_ip_address()}, process {os.getpid()}"

    def digest(self, recipe: Recipe) -> str:
        """Return the hash of a recipe's tensors, which are not kept."""
        return self._worker.digest(recipe)

    def merge(self, recipe: Recipe) -> Merged:
        """Make the live model the recipe's."""
        return self._worker.merge(recipe)

    def statistics_files(self, key: str) -> list[str]:
        """Name the files of statistics that a merge has looked at."""
        return sorted(file.name for file in self._worker.statistics(key).iterdir())

    def statistics_file(self, key: str, name: str) -> bytes:
        """Read one of them."""
        return (self._worker.statistics(key) / name).read_bytes()

    def score(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        """Score documents of a task, by id."""
        return self._worker.score(recipe, digest, fingerprint, doc_ids)

    def in_words(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, str]:
        """Ask about documents of a task for the answers themselves, by id."""
        return self._worker.in_words(recipe, digest, fingerprint, doc_ids)

    def learn(
        self, course: Course, known: Sequence[Pass], experts: Mapping[str, str]
    ) -> Iterator[tuple[int, int] | Pass]:
        """Yield how far learning has come, step by step, and last the pass."""
        steps: SimpleQueue[tuple[int, int] | None] = SimpleQueue()

        def tell(done: int, most: int) -> None:
            steps.put((done, most))

        with ThreadPoolExecutor(1) as beside:
            learned = beside.submit(self._worker.learn, course, known, experts, tell)
            learned.add_done_callback(lambda _: steps.put(None))
            while (step := steps.get()) is not None:
                yield step
            yield learned.result()
