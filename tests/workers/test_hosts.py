"""Two hosts without a shared folder: network namespaces of this machine, joined by a wire."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from mergesearch.runs import Record, read_status
from tests import tiny
from tests.searching.test_kill import n_ended
from tests.searching.watch import load, most_scored

# some eight minutes, most of which Ray waits for the host that is gone: `make test-hosts`
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("HOSTS") != "1", reason="runs by `make test-hosts`"),
]

N_TRIALS = 40
#: Of the two hosts; they are reached from nowhere else.
ADDRESSES = "192.168.201.1", "192.168.201.2"
_TOKEN = secrets.token_hex(32)


def sh(command: str, **kwargs: object) -> None:
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode()}"


def can_make_hosts() -> bool:
    name = f"ms{os.getpid()}probe"
    command = f"ip netns add {name} && ip netns del {name} && unshare -m true"
    return (
        os.geteuid() == 0
        and not subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode
    )


@dataclass
class Hosts:
    """Two network namespaces; in the second, the family's folder holds other files."""

    names: tuple[str, str]
    family: Path
    copy: Path
    said: Path
    processes: list["subprocess.Popen[bytes]"]

    def start(self, host: int, command: str) -> "subprocess.Popen[bytes]":
        inside = (
            f"ip netns exec {self.names[host]} unshare -m sh -c '{self._own_files(host)}{command}'"
        )
        # each host has its own place for what Ray keeps, and finds no proxy
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": _TOKEN,
        }
        with self.said.open("ab") as said:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {inside}"], env=environment, stdout=said, stderr=said
            )
        self.processes.append(process)
        return process

    def _own_files(self, host: int) -> str:
        if host == 0:
            return ""
        return (
            "mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && "
            f"mount -t tmpfs none {self.family} && mkdir {self.family}/models && "
            f"mount --bind {self.copy} {self.family}/models && "
        )

    def cut(self) -> None:
        sh(f"ip -n {self.names[1]} link set wire down")


@pytest.fixture
def hosts(family: Path, tmp_path: Path) -> Iterator[Hosts]:
    if not can_make_hosts():
        pytest.skip("makes network namespaces, which needs root")
    names = f"ms{os.getpid()}a", f"ms{os.getpid()}b"
    shutil.copytree(family / "models", tmp_path / "copy")
    made = Hosts(names, family, tmp_path / "copy", tmp_path / "said", [])
    try:
        for name in names:
            sh(f"ip netns add {name} && ip -n {name} link set lo up")
        first, second = (f"netns {name}" for name in names)
        sh(f"ip link add wire {first} type veth peer name wire {second}")
        for name, address in zip(names, ADDRESSES, strict=True):
            sh(f"ip -n {name} addr add {address}/24 dev wire && ip -n {name} link set wire up")
        ray = f"{Path(sys.executable).parent}/ray start --num-cpus=1 --block --disable-usage-stats"
        made.start(
            0,
            f"{ray} --head --node-ip-address={ADDRESSES[0]} --port=6379 --include-dashboard=false",
        )
        wait(made, lambda: b"Ray runtime started" in made.said.read_bytes())
        made.start(1, f"{ray} --address={ADDRESSES[0]}:6379 --node-ip-address={ADDRESSES[1]}")
        wait(made, lambda: made.said.read_bytes().count(b"Ray runtime started") == 2)
        yield made
    finally:
        for name in names:
            subprocess.run(
                ["sh", "-c", f"ip netns pids {name} | xargs -r kill -9; ip netns del {name}"],
                capture_output=True,
                check=False,
            )
        for process in made.processes:
            process.kill()
            process.wait()


def wait(hosts: Hosts, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not holds():
        assert all(p.poll() is None for p in hosts.processes), hosts.said.read_text()
        assert time.monotonic() < deadline, hosts.said.read_text()
        time.sleep(0.05)


def search(hosts: Hosts) -> "subprocess.Popen[bytes]":
    space, run = hosts.family / "space.yaml", hosts.family / "run"
    command = f"{sys.executable} -m mergesearch search {space} --out {run} --device cpu"
    return hosts.start(0, f"exec {command} --ray {ADDRESSES[0]}:6379 --workers 2")


def working(hosts: Hosts) -> Mapping[str, str]:
    status = read_status(hosts.family / "run")
    return status.workers if status and status.is_alive else {}


def test_a_search_over_two_hosts_ends_when_one_is_cut_off(hosts: Hosts) -> None:
    load(hosts.family, search={"trials": N_TRIALS})
    # the other host's copy of one model is not the driver's
    own = hosts.copy / "two"
    kept = shutil.copytree(own, hosts.copy.parent / "kept")
    tiny.llama(own, 77, base=hosts.copy / "base")
    process = search(hosts)
    wait(hosts, lambda: b"two is another model on" in hosts.said.read_bytes())
    process.terminate()
    process.wait()
    hosts.processes.remove(process)
    shutil.copytree(kept, own, dirs_exist_ok=True)

    process = search(hosts)
    wait(hosts, lambda: any(ADDRESSES[1] in name for name in working(hosts)))
    wait(hosts, lambda: n_ended(hosts.family) >= 10)
    hosts.cut()
    assert process.wait(timeout=400) == 0, hosts.said.read_text()
    record = Record(hosts.family / "run", writable=False)
    assert len(record.trials) == N_TRIALS
    assert all(trial.error is None for trial in record.trials)
    assert most_scored(hosts.family / "run") == 1
    assert {"winner", "base", "one", "two"} <= {row.label for row in record.rows}
