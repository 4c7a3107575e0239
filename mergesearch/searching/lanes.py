"""Lanes: as many candidates under way at a time as there are workers."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread

from mergesearch.errors import CandidateError
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.workers import PoolClosed

#: Seconds between two looks at the lanes, in which an interrupt is heard.
_LOOK = 0.1
#: Seconds that lanes have to end when the pool was closed.
_END = 8.0


class Lanes:
    """The driver's threads, one a worker; without a pool, the thread of the caller.

    Args:
        candidates: of the run; without a pool they are lent themselves.
    """

    def __init__(self, candidates: CandidateEvaluator) -> None:
        self._candidates = candidates
        self._pool = candidates.pool

    @property
    def n(self) -> int:
        """The candidates that are under way at a time."""
        return self._pool.n_workers if self._pool else 1

    @contextmanager
    def lend(self) -> Iterator[CandidateEvaluator]:
        """Lend what scores by an idle worker until the block ends; waits for one."""
        if self._pool is None:
            yield self._candidates
            return
        with self._pool.lend() as worker:
            yield self._candidates.of(worker)

    def run(self, work: Callable[[], None]) -> None:
        """Do work in every lane until all of them return.

        An interrupt, and whatever is raised in one lane, ends all of them and is raised here.
        """
        if self._pool is None:
            work()
            return
        raised: list[BaseException] = []

        def lane() -> None:
            try:
                work()
            except PoolClosed:
                return
            except BaseException as error:
                raised.append(error)

        threads = [Thread(target=lane, daemon=True) for _ in range(self.n)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) and not raised:
                for thread in threads:
                    thread.join(_LOOK / len(threads))
            if raised:
                raise raised[0]
        except BaseException:
            self._pool.close()
            last = time.monotonic() + _END
            for thread in threads:  # none writes to the run when this returns
                thread.join(max(0.0, last - time.monotonic()))
            raise

    def ahead(self, jobs: Iterable[Callable[[CandidateEvaluator], object]]) -> None:
        """Do at once what is asked for one by one later: then the record knows it.

        Without a pool nothing is done. A failure of a candidate is left to whoever asks.
        """
        if self._pool is None:
            return
        waiting, lock = iter(list(jobs)), Lock()

        def work() -> None:
            while True:
                with lock:
                    job = next(waiting, None)
                if job is None:
                    return
                with self.lend() as candidates, suppress(CandidateError):
                    job(candidates)

        self.run(work)
