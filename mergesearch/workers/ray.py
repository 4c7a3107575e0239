"""Workers as Ray actors, on the devices of this host or of a cluster."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Lock, Thread
from types import MappingProxyType
from typing import Any, Self

from mergesearch.errors import CandidateError, InputError
from mergesearch.files import whole_folder
from mergesearch.learning import Course
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass
from mergesearch.scores import DocumentScore
from mergesearch.workers.actor import Actor, Start
from mergesearch.workers.base import Merged, OtherTensorsError, Worker
from mergesearch.workers.cluster import Cluster, first_line
from mergesearch.workers.pool import PoolClosed

#: Deaths of workers on one thing that was asked, after which it is given up.
N_DEATHS = 3
#: Seconds between two looks at whether the pool was closed.
_LOOK = 0.5


@dataclass(frozen=True)
class _Seat:
    """An actor, and where it is."""

    number: int
    handle: Any
    node: str = ""
    place: str = "not yet up"

    def __str__(self) -> str:
        return f"worker {self.number} ({self.place})"


class RayPool:
    """A `Pool` of Ray actors; one that dies is replaced, and its work done again.

    Args:
        start: makes a worker; it is sent to the processes, and raises what is wrong there.
        n_workers: how many; None is one for each device of a cluster, or each host without any.
        address: of a cluster that is up, or "auto"; None starts Ray on this host until the end.
        accelerated: workers may compute on accelerators, where there are any.
        n_devices: that each worker then takes.
        models: recipes of each model alone, by its name: a worker on another host must have the
            same.
        digest_of: gives the hash of such a recipe's tensors here.
        statistics: the run's folder of them; what workers compute elsewhere is copied there.
        say: is told of workers that come and go.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or it has too few devices.
    """

    def __init__(
        self,
        start: Start,
        n_workers: int | None = None,
        *,
        address: str | None = None,
        accelerated: bool = False,
        n_devices: int = 1,
        models: Mapping[str, Recipe] = MappingProxyType({}),
        digest_of: Callable[[Recipe], str] | None = None,
        statistics: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._say = say
        self._models = models
        self._digest_of = digest_of
        self._statistics = statistics
        self._digests: dict[str, str] = {}
        self._checking, self._bringing = Lock(), Lock()
        self._closed = False
        #: Why no further worker can be had.
        self._failure: Exception | None = None
        self._changed = Condition()
        self._idle: list[_Seat] = []
        self._starting: set[int] = set()
        self._alive: dict[int, _Seat] = {}
        self._n_started = 0
        #: Since the last that came up.
        self._n_died_starting = 0
        self._deaths: Counter[str] = Counter()
        self._cluster = cluster = Cluster.connect(
            address, n_workers, accelerated=accelerated, n_devices=n_devices
        )
        self._ray, self.n_workers = cluster.ray, cluster.n_workers
        self._start = self._ray.put(start), cluster.n_sharing
        self._actor = self._ray.remote(Actor).options(
            num_cpus=1,
            num_gpus=cluster.n_devices,
            scheduling_strategy="SPREAD",
            max_restarts=0,
        )
        self._own_node = self._ray.get_runtime_context().get_node_id()
        for _ in range(self.n_workers):
            self._launch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._cluster.leave()

    @contextmanager
    def lend(self) -> Iterator[Worker]:
        """Lend whichever worker is idle until the block ends; waits for one."""
        lent = _Lent(self, self.take())
        try:
            yield lent
        finally:
            self.give_back(lent.seat)

    def close(self) -> None:
        """End all workers, whatever they do: their callers get `PoolClosed`."""
        with self._changed:
            self._closed = True
            seats = list(self._alive.values())
            self._changed.notify_all()
        for seat in seats:
            self._kill(seat)

    def take(self) -> _Seat:
        """Wait for an idle worker.

        Raises:
            PoolClosed: the pool is closed.
            InputError: no worker is left, and no other can be had.
        """
        with self._changed:
            while not self._idle:
                self._check_open()
                if self._failure and not self._alive and not self._starting:
                    raise self._failure
                self._changed.wait(_LOOK)
            self._check_open()
            return self._idle.pop()  # who is asked again may still hold the same candidate

    def give_back(self, seat: _Seat) -> None:
        """Take a worker back; one that has died or is out is forgotten already."""
        with self._changed:
            if seat.number in self._alive:
                self._idle.append(seat)
                self._changed.notify()

    def replace(self, seat: _Seat, asked: str, reason: str) -> _Seat:
        """Replace a worker that has died on something, and wait for whichever is idle.

        Args:
            seat: it had.
            asked: names what it was asked.
            reason: of its death.

        Raises:
            CandidateError: workers died on the same too often.
            PoolClosed: the pool is closed.
        """
        self._check_open()
        self._forget(seat)
        self._say(f"{seat} died: {reason}; another is started")
        self._launch()
        self._deaths[asked] += 1
        if self._deaths[asked] >= N_DEATHS:
            raise CandidateError(f"{N_DEATHS} workers died on it, the last for this: {reason}")
        return self.take()

    def dismiss(self, seat: _Seat, reason: Exception) -> _Seat:
        """Let go of a worker that cannot be believed, and wait for whichever is idle.

        Raises:
            InputError: it was the last; with the reason.
        """
        self._say(f"{seat} is out: {reason}")
        self._forget(seat)
        self._kill(seat)
        with self._changed:
            if not self._alive and not self._starting:
                raise reason
        return self.take()

    def get(self, reference: Any) -> Any:
        """Wait for an answer.

        Raises:
            WorkerDied: the worker has died.
            MergesearchError: whatever the worker raised.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise WorkerDied(first_line(error)) from None

    def bring(self, seat: _Seat, key: str) -> None:
        """Copy statistics that a worker has into the run's folder, if they are not there.

        Raises:
            WorkerDied: it has died meanwhile.
            InputError: they cannot be written.
        """
        if self._statistics is None:
            return
        folder = self._statistics / key
        with self._bringing:
            if folder.is_dir():
                return
            try:
                with whole_folder(folder) as made:
                    for name in self.get(seat.handle.statistics_files.remote(key)):
                        file = self.get(seat.handle.statistics_file.remote(key, name))
                        (made / name).write_bytes(file)
            except OSError as error:
                raise InputError(f"cannot write {folder}: {error.strerror}; make room") from None

    def _launch(self) -> None:
        with self._changed:
            self._n_started += 1
            number = self._n_started
            self._starting.add(number)
        seat = _Seat(number, self._actor.remote(*self._start))
        Thread(target=self._receive, args=(seat,), daemon=True).start()

    def _receive(self, seat: _Seat) -> None:
        """Wait until a worker is up, and check that it has what the others have."""
        try:
            node, place = self.get(seat.handle.where.remote())
            seat = replace(seat, node=node, place=place)
            self._check(seat)
        except Exception as error:  # whatever it is, it is raised where a worker is waited for
            self._end_start(seat, error)
            return
        with self._changed:
            self._starting.discard(seat.number)
            if not self._closed:
                self._n_died_starting = 0
                self._alive[seat.number] = seat
                self._idle.append(seat)
                self._changed.notify()
                return
        self._kill(seat)

    def _end_start(self, seat: _Seat, error: Exception) -> None:
        """Note that a worker could not be started, and why."""
        with self._changed:
            self._starting.discard(seat.number)
            if self._closed:
                return
            again = isinstance(error, WorkerDied) and self._n_died_starting < N_DEATHS
            if isinstance(error, WorkerDied):
                self._n_died_starting += 1
                error = InputError(
                    f"{N_DEATHS} workers in a row died while they started, the last for this: "
                    f"{error}; start fewer of them, or give them more memory"
                )
            if not again:
                self._failure = error
                self._changed.notify_all()
        if again:
            self._launch()
            return
        self._say(f"{seat} is out: {error}")
        self._kill(seat)

    def _check(self, seat: _Seat) -> None:
        """Compare the models of another host with those of this one.

        Raises:
            InputError: one differs; with its name.
        """
        if self._digest_of is None or seat.node == self._own_node:
            return
        for name, recipe in self._models.items():
            with self._checking:
                if name not in self._digests:
                    self._digests[name] = self._digest_of(recipe)
            if self.get(seat.handle.digest.remote(recipe)) != self._digests[name]:
                raise InputError(
                    f"{name} is another model on {seat.place.partition(',')[0]} than here; copy "
                    "it there, or name a revision of the hub"
                )

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosed

    def _forget(self, seat: _Seat) -> None:
        with self._changed:
            self._alive.pop(seat.number, None)

    def _kill(self, seat: _Seat) -> None:
        with contextlib.suppress(Exception):  # it is gone already, or Ray is
            self._ray.kill(seat.handle, no_restart=True)


class WorkerDied(Exception):
    """A worker has died while it was asked something."""


class _Lent:
    """A `Worker` that is lent: in the place of one that dies comes another."""

    def __init__(self, pool: RayPool, seat: _Seat) -> None:
        self._pool = pool
        self.seat = seat

    @property
    def name(self) -> str:
        return str(self.seat)

    def digest(self, recipe: Recipe) -> str:
        return self._ask(recipe.hash, lambda actor: actor.digest.remote(recipe))

    def merge(self, recipe: Recipe) -> Merged:
        def ended(reference: Any) -> Merged:
            merged: Merged = self._pool.get(reference)
            for one in merged.statistics:
                self._pool.bring(self.seat, one.key)
            return merged

        return self._ask(recipe.hash, lambda actor: actor.merge.remote(recipe), ended)

    def score(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        args = recipe, digest, fingerprint, tuple(doc_ids)
        return self._ask(recipe.hash, lambda actor: actor.score.remote(*args))

    def in_words(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, str]:
        args = recipe, digest, fingerprint, tuple(doc_ids)
        return self._ask(recipe.hash, lambda actor: actor.in_words.remote(*args))

    def learn(
        self,
        course: Course,
        known: Sequence[Pass],
        experts: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> Pass:
        def begun(actor: Any) -> Any:
            streamed = actor.learn.options(num_returns="streaming")
            return streamed.remote(course, tuple(known), dict(experts))

        def ended(steps: Any) -> Pass:
            for step in map(self._pool.get, steps):
                if isinstance(step, Pass):
                    return step
                progress(*step)
            raise WorkerDied("it ended without a word")

        return self._ask(f"pass {len(known) + 1} of {course}", begun, ended)

    def _ask(
        self,
        asked: str,
        begin: Callable[[Any], Any],
        end: Callable[[Any], Any] | None = None,
    ) -> Any:
        end = end or self._pool.get
        while True:
            try:
                return end(begin(self.seat.handle))
            except WorkerDied as death:
                self.seat = self._pool.replace(self.seat, asked, str(death))
            except OtherTensorsError as difference:
                self.seat = self._pool.dismiss(self.seat, difference)
