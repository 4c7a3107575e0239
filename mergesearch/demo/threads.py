"""The number of threads that pays for models as small as the demo's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread until the block ends, whatever torch was set to.

    A step of a tiny model is over before threads have met, and where another process keeps a core
    busy they wait for each other most of the time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
