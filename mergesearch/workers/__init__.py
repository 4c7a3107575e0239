"""Workers: who merges, scores and learns for the one driver of a run."""

from mergesearch.workers.base import Merged, OtherTensorsError, Worker
from mergesearch.workers.local import LocalWorker
from mergesearch.workers.pool import AnyWorker, Pool, PoolClosed
from mergesearch.workers.teacher import Teacher

__all__ = [
    "AnyWorker",
    "LocalWorker",
    "Merged",
    "OtherTensorsError",
    "Pool",
    "PoolClosed",
    "Teacher",
    "Worker",
]
