"""The cluster: Ray on this host or on many, and the places for workers there."""

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import psutil

from mergesearch.errors import InputError

#: Bytes of Ray's own store on this host: what passes through it is small.
_STORE = 200 * 2**20
#: Starts of Ray on this host: a busy one may need more than the half minute that Ray waits.
_N_STARTS = 3
#: Seconds in which the host of a cluster answers.
_LISTENS = 5.0
#: Of Ray: what its workers are behind, where it is not 0.
_NICENESS = "RAY_worker_niceness"
#: Of Ray: how often it asks a cluster that does not answer, for half a minute each; else 20 times.
_ASKS = "RAY_gcs_server_port_wait_time_s"
#: Seconds after which an interrupt is heard while Ray starts.
_LOOK = 0.1
#: Of Ray: a folder, named for when it began, to the microsecond, and for the process that began it.
_SESSION = re.compile(r"(/[^\s=]*/session_\d{4}-\d\d-\d\d_[\d_-]+)")


@dataclass(frozen=True)
class Cluster:
    """Ray, connected, and how workers share its hosts."""

    #: The module.
    ray: Any
    n_workers: int
    #: Workers that share a host, at most.
    n_sharing: int
    #: Devices of a worker; 0 where it computes on cores.
    n_devices: int
    #: Lets the thread go that holds Ray.
    left: Event = field(default_factory=Event)

    @classmethod
    def connect(
        cls, address: str | None, n_workers: int | None, *, accelerated: bool, n_devices: int
    ) -> "Cluster":
        """Start Ray on this host, or join a cluster.

        Args:
            address: of a cluster that is up, or "auto"; None starts Ray here.
            n_workers: how many; None is as many as there are places: of devices as many as each
                worker takes, and where there are none a host.
            accelerated: workers may compute on accelerators, where there are any.
            n_devices: that each worker then takes.

        Raises:
            InputError: Ray is not installed, there is no such cluster, or it has too few devices.
        """
        ray, left = _init(address, n_workers)
        _print(ray, False)
        on_devices = accelerated and bool(ray.cluster_resources().get("GPU"))
        resource, of_each = ("GPU", n_devices) if on_devices else ("CPU", 1)
        amounts = [int(n["Resources"].get(resource, 0)) for n in ray.nodes() if n["Alive"]]
        hosts = [amount for amount in amounts if amount >= of_each]
        rooms = [amount // of_each for amount in hosts]
        room = sum(rooms)
        if (n_workers or 1) > room:
            _leave(ray, left)
            raise InputError(
                f"{n_workers or 1} workers of {of_each} {resource}s each are wanted, and there is "
                f"room for {room}; lower --workers"
            )
        # where there are no devices, the workers of a host share its cores, however many they are
        n_places = room if on_devices else len(hosts)
        n_workers = n_workers or n_places
        return cls(
            ray,
            n_workers=n_workers,
            n_sharing=next(k for k in count(1) if sum(min(k, n) for n in rooms) >= n_workers),
            n_devices=n_devices if on_devices else 0,
            left=left,
        )

    def leave(self) -> None:
        """End Ray on this host; of another's cluster, this process's connection alone."""
        _leave(self.ray, self.left)


def _leave(ray: Any, left: Event) -> None:
    ray.shutdown()
    left.set()
    _print(ray, True)


def _print(ray: Any, printed: bool) -> None:
    """Have Ray print what it says of a death, a dozen lines, or not; we say it in one.

    It has no option for it, and this is how its own debugger does it.
    """
    ray._private.worker._worker_logs_enabled = printed


def first_line(error: BaseException) -> str:
    """Shorten what Ray says to its point, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("The actor is dead")]
    line = (told or lines or [type(error).__name__])[0]
    return line.partition(" Worker exit type")[0].rstrip(".")


def _init(address: str | None, n_workers: int | None) -> tuple[Any, Event]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault(_NICENESS, "0")  # else 15: behind whatever else the host does
    try:
        import ray
    except ImportError:
        raise InputError(
            "workers need Ray, which is not installed; pip install 'mergesearch[ray]'"
        ) from None
    if ray.is_initialized():
        raise InputError(
            "workers need a Ray of their own, and this process is connected to one; "
            "call ray.shutdown() first"
        )
    if address is not None:
        _find(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        options |= {
            "address": "local",  # whatever RAY_ADDRESS says
            "num_cpus": n_workers,
            "include_dashboard": False,
            "object_store_memory": _STORE,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        options["address"] = address
    n_left = _N_STARTS if address is None else 1
    while True:
        n_left -= 1
        try:
            return ray, _hold(ray, options)
        except Exception as error:  # of Ray's own, which have no root, where it does not come up
            ray.shutdown()
            if n_left:
                continue
            where = "on this host" if address is None else f"at {address}"
            reason = first_line(error).partition(" Please")[0].rstrip(".")
            raise InputError(f"Ray cannot be reached {where}: {reason}") from None


def _hold(ray: Any, options: Mapping[str, Any]) -> Event:
    """Start or join Ray in a thread that holds it until the event that is returned.

    Its calls hear no interrupt for half a minute, and its processes end with the thread that has
    started them.
    """
    left = Event()
    came: SimpleQueue[Exception | None] = SimpleQueue()
    before = set(psutil.Process().children())

    def hold() -> None:
        try:
            is_own = options["address"] == "local"
            with _environment({} if is_own else {_ASKS: os.environ.get(_ASKS, "1")}):
                ray.init(**options)
        except Exception as error:
            _clear(before)  # while those are there that tell what else is of the same session
            came.put(error)
            return
        came.put(None)
        left.wait()

    Thread(target=hold, daemon=True).start()
    try:
        while True:
            with contextlib.suppress(Empty):
                error = came.get(timeout=_LOOK)
                break
    except BaseException:  # an interrupt
        _clear(before)
        raise
    if error:
        raise error
    return left


def _find(address: str) -> None:
    """Look if anybody listens at an address, or Ray asks it for a quarter of an hour.

    Raises:
        InputError: nobody does, or it is no address of a host and a port.
    """
    named = address if address != "auto" else os.environ.get("RAY_ADDRESS") or address
    if named == "auto":
        return
    host, _, port = named.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(
            "the address of Ray is HOST:PORT of a cluster that this host is in, or auto; "
            f"got {named!r}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"Ray cannot be reached at {named}: {error}; start it there with "
            f"ray start --head --port={port}, or give another address"
        ) from None


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set the environment until the block ends."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _clear(before: Set[psutil.Process]) -> None:
    """End what a failed start of Ray has left, which would slow the next.

    Its processes name a session of Ray's in their commands, and the children of this process that
    were not there before say which: no other cluster's are touched.
    """
    sessions: set[str] = set()
    left: set[psutil.Process] = set()
    for process in set(psutil.Process().children()) - before:
        if named := _sessions(process):
            sessions |= named
            with contextlib.suppress(psutil.Error):
                left.update(process.children(recursive=True))  # some have other titles by now
    left.update(process for process in psutil.process_iter() if sessions & _sessions(process))
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _sessions(process: psutil.Process) -> set[str]:
    """Return the folders of Ray's sessions that a process names in its command."""
    try:
        return set(_SESSION.findall(" ".join(process.cmdline())))
    except psutil.Error:
        return set()
