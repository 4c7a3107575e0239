"""Threads that each do whole jobs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

import torch

from mergesearch.runtime import torch_threads

A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """Runs jobs one a thread, each without torch's own threads, for the same bits.

    Args:
        n: how many at once; with one, everything happens in the calling thread.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._pool = ThreadPoolExecutor(n) if n > 1 else None

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Yield the results in the order of the items, no more under way than threads."""
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                if len(waiting) == self.n:
                    yield waiting.popleft().result()
                waiting.append(self._pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Wait for what is under way, and end."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def workers(device: torch.device) -> Iterator[Workers]:
    """Open as many workers as torch has threads on the CPU, or one for a device.

    A device is parallel itself. Meanwhile torch has one thread, in this thread and in theirs.
    """
    n = torch.get_num_threads() if device.type == "cpu" else 1
    with torch_threads(1), closing(Workers(n)) as pool:
        yield pool
