"""The memory of what a model's tensors were last written from."""

from collections.abc import Hashable, Iterable, Sequence

from mergesearch.merging.digest import Digest
from mergesearch.merging.plan import Job


class Written:
    """The tensors of one model that need not be written again, with their hashes.

    A tensor's bits follow from its job and, where the method draws random numbers, from the
    recipe's seed. What is being written is forgotten first, so that a merge which fails half-way
    leaves nothing behind that is taken for whole. It holds for the models of one `Parents`, and
    while nobody else writes into the model.
    """

    def __init__(self) -> None:
        self._sources: dict[str, Hashable] = {}
        self._parts: dict[str, str] = {}

    def holds(self, name: str, source: Hashable) -> bool:
        """Tell if a tensor is what would be written from a source (`source_of`)."""
        return self._sources.get(name) == source

    def put(self, name: str, source: Hashable, part: str) -> None:
        """Remember what a tensor was written from, and its hash."""
        self._sources[name], self._parts[name] = source, part

    def forget(self, names: Iterable[str]) -> None:
        """Forget tensors that are about to be written."""
        for name in names:
            self._sources.pop(name, None)

    def digest(self, jobs: Iterable[Job]) -> str:
        """Return the hash of a model that jobs have written."""
        digest = Digest()
        for job in jobs:
            digest.put(job.name, self._parts[job.name])
        return digest.hexdigest()


def source_of(job: Job, seed: int, looked_at: Sequence[str] = ()) -> Hashable:
    """Name everything that decides a tensor's bits.

    Arguments are numbers, flags and words, whose text tells 0.0 from -0.0 and 1 from True.

    Args:
        job: writes it.
        seed: the recipe's.
        looked_at: names of the statistics that the job looks at.
    """
    return (
        job.method.function,
        job.base,
        job.models,
        repr(sorted(job.arguments.items())),
        job.flat_range,
        job.shape,
        job.dtype,
        job.held,
        seed if job.method.random else None,
        tuple(looked_at),
    )
