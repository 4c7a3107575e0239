"""Ray itself: how it is started and found, and what is left of a start that failed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

from mergesearch.errors import InputError
from mergesearch.workers import cluster
from mergesearch.workers.cluster import Cluster


def connect(address: str | None) -> Cluster:
    return Cluster.connect(address, 2, accelerated=False, n_devices=1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray is asked for, which it never gives."""
    options: list[dict[str, Any]] = []

    def init(**given: Any) -> None:
        options.append({**given, "asks": os.environ.get(cluster._ASKS)})
        raise RuntimeError("The current node timed out during startup. It may be busy.")

    monkeypatch.setattr(ray, "init", init)
    return options


@pytest.mark.parametrize("address", [None, "auto"])
def test_ray_is_started_again_where_a_busy_host_was_slow_and_a_cluster_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]], address: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    where = "on this host" if address is None else "at auto"
    with pytest.raises(InputError, match=rf"^Ray cannot be reached {where}: The current node"):
        connect(address)
    assert len(asked) == (3 if address is None else 1)
    assert {one["asks"] for one in asked} == {None if address is None else "1"}
    assert cluster._ASKS not in os.environ


def test_workers_of_this_host_are_not_those_of_an_address_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.delenv(cluster._NICENESS, raising=False)
    with pytest.raises(InputError, match="on this host"):
        connect(None)
    assert asked[0]["address"] == "local"
    assert os.environ[cluster._NICENESS] == "0"


def test_an_interrupt_is_heard_while_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(ray, "init", lambda **_: ended.wait(30))  # hears nothing
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    # which shells have what they start in the background ignore
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        began = time.monotonic()
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            connect(None)
        assert time.monotonic() - began < 10
    finally:
        signal.signal(signal.SIGINT, before)
        ended.set()


class Hosts:
    """Stands for Ray on hosts with so many cores or devices each."""

    def __init__(self, resource: str, amounts: Sequence[int]) -> None:
        self._of = [{"Alive": True, "Resources": {"CPU": 1, resource: n}} for n in amounts]
        self.was_left = False
        self._private = SimpleNamespace(worker=SimpleNamespace())

    def is_initialized(self) -> bool:
        return False

    def init(self, **_: Any) -> None: ...

    def cluster_resources(self) -> dict[str, int]:
        return {name: 1 for node in self._of for name in node["Resources"]}  # type: ignore[attr-defined]

    def nodes(self) -> list[dict[str, Any]]:
        return self._of

    def shutdown(self) -> None:
        self.was_left = True

    @property
    def prints(self) -> bool:
        """Whether Ray prints what it says of deaths."""
        return bool(self._private.worker._worker_logs_enabled)


@pytest.mark.parametrize(
    ("resource", "amounts", "wanted", "n_devices", "n_workers", "n_sharing"),
    [
        ("CPU", [8, 8], None, 1, 2, 1),  # a host each, whose cores one worker uses
        ("CPU", [8, 8], 6, 1, 6, 3),
        ("CPU", [1, 1], 3, 1, None, None),
        ("GPU", [8, 4, 0], None, 1, 12, 8),  # of which the first host has eight
        ("GPU", [8, 4, 3], None, 4, 3, 2),
        ("GPU", [8, 4, 3], 4, 4, None, None),
        ("GPU", [1], None, 2, None, None),
    ],
)
def test_there_are_as_many_workers_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
    resource: str,
    amounts: list[int],
    wanted: int | None,
    n_devices: int,
    n_workers: int | None,
    n_sharing: int | None,
) -> None:
    hosts = Hosts(resource, amounts)
    monkeypatch.setitem(sys.modules, "ray", hosts)
    if n_workers is None:
        with pytest.raises(InputError, match=r"workers of \d \w+ each are wanted, .*room for \d;"):
            Cluster.connect(None, wanted, accelerated=True, n_devices=n_devices)
        assert hosts.was_left
        assert hosts.prints
        return
    made = Cluster.connect(None, wanted, accelerated=True, n_devices=n_devices)
    assert (made.n_workers, made.n_sharing) == (n_workers, n_sharing)
    assert made.n_devices == (n_devices if resource == "GPU" else 0)
    assert not hosts.prints
    made.leave()
    assert hosts.was_left
    assert hosts.prints
    assert made.left.is_set()


@pytest.mark.parametrize("address", ["", "local", "elsewhere", "ray://elsewhere:10001"])
def test_what_is_no_address_is_one_line(asked: list[dict[str, Any]], address: str) -> None:
    with pytest.raises(InputError, match=r"^the address of Ray is HOST:PORT of .*got '") as caught:
        connect(address)
    assert "\n" not in str(caught.value)
    assert not asked


@pytest.mark.parametrize("from_environment", [False, True])
def test_an_address_where_nobody_listens_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]], from_environment: bool
) -> None:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{own.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=f"^Ray cannot be reached at {address}: .*refused"):
            connect("auto" if from_environment else address)
    assert not asked


def test_a_ray_that_this_process_has_already_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, asked: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("it is another's"))
    with pytest.raises(InputError, match=r"connected to one; call ray.shutdown\(\) first"):
        connect(None)
    assert not asked


MINE = "session_2026-01-02_03-04-05_678901_23"
OTHER = "session_2026-01-02_03-04-05_678902_23"


@pytest.fixture
def naming() -> Iterator[Any]:
    """Starts processes that name a session of Ray's, as children of this one's or orphans."""
    started = []

    def start(session: str, *, orphan: bool = False) -> psutil.Process:
        command = [sys.executable, "-c", "import time; time.sleep(60)", f"--x=/r/{session}/logs"]
        if orphan:
            code = "import subprocess as s, sys; print(s.Popen(sys.argv[1:], stdout=-3).pid)"
            said = subprocess.run([sys.executable, "-c", code, *command], stdout=-1, check=True)
            started.append(psutil.Process(int(said.stdout)))
        else:
            started.append(psutil.Process(subprocess.Popen(command).pid))
        return started[-1]

    yield start
    for process in started:
        if process.is_running():
            process.kill()


def ended(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        for _ in range(500):
            if process.status() == psutil.STATUS_ZOMBIE:  # nobody has asked how it ended
                return True
            time.sleep(0.01)
        return False
    return True


def test_what_a_failed_start_has_left_is_ended_and_nothing_else(naming: Any) -> None:
    earlier = naming(OTHER)
    before = set(psutil.Process().children())
    child, orphan = naming(MINE), naming(MINE, orphan=True)
    strange = naming(OTHER, orphan=True)  # another's, whose process had the same number
    cluster._clear(before)
    assert ended(child)
    assert ended(orphan)
    assert earlier.status() != psutil.STATUS_ZOMBIE
    assert strange.is_running()
