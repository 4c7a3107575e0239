"""A search by Ray's workers, killed here and there: nothing is lost, doubled or left behind.

Starts are what this takes: one search is started three times, and learns on its way.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from mergesearch.merging import LiveModel
from mergesearch.parents import Parents
from mergesearch.runs import Record, read_status
from mergesearch.searching import prepare
from mergesearch.searching.runs import study_name
from mergesearch.searching.study import finished, open_study
from tests.searching.test_kill import n_ended
from tests.searching.watch import load, most_scored, running

pytestmark = pytest.mark.slow

N_TRIALS = 64
METHODS = {
    "linear": {},
    "task_arithmetic": {},
    "ties": {},
    "learned": {"of": "task_arithmetic", "passes": 2, "documents": 4},
}
#: Seconds that a start may take where other work has the cores.
STARTS = 600
#: Of Ray: they look for its store, which is gone, for a minute or two before they end.
_AGENTS = "Agent", "agent"


@pytest.fixture
def start(family: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts the search, new or to go on; none is left when the test ends, however it does."""
    started: list[subprocess.Popen[bytes]] = []

    def again() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "mergesearch", "search", str(family / "space.yaml")]
        command += ["--out", str(family / "run"), "--device", "cpu", "--workers", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with (family / "said").open("ab") as said:
            started.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
        return started[-1]

    yield again
    for process in started:
        left = below(process) if process.poll() is None else []
        process.kill()
        process.wait()
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def wait_for(family: Path, process: subprocess.Popen[bytes], holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STARTS
    while not holds():
        assert process.poll() is None, (family / "said").read_text()
        assert time.monotonic() < deadline, (family / "said").read_text()
        time.sleep(0.01)


def workers(family: Path) -> list[int]:
    """The processes of workers that do something."""
    status = read_status(family / "run")
    names = list(status.workers) if status and status.is_alive else []
    return [int(found[1]) for name in names if (found := re.search(r"process (\d+)", name))]


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that a search has started, and those that they have."""
    return psutil.Process(process.pid).children(recursive=True)


def command_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def actors(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of all workers, whatever they do."""
    return [one for one in below(process) if "Actor" in command_of(one).partition(" ")[0]]


def still_there(before: list[psutil.Process]) -> list[psutil.Process]:
    """Those that hold memory or a device after ten seconds."""
    _, alive = psutil.wait_procs(before, timeout=10)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_search_whose_workers_and_driver_are_killed_ends_as_it_should(
    family: Path, start: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    space = load(family, methods=METHODS, search={"trials": N_TRIALS})
    process = start()
    wait_for(family, process, lambda: n_ended(family) >= 2 and bool(workers(family)))
    victim = workers(family)[0]
    assert psutil.Process(victim).nice() == psutil.Process(process.pid).nice()
    os.kill(victim, signal.SIGKILL)
    wait_for(family, process, lambda: n_ended(family) >= 6)
    assert actors(process)
    there = [p for p in below(process) if not any(name in command_of(p) for name in _AGENTS)]
    process.kill()  # the driver, and nobody tells its workers, or Ray
    process.wait()
    assert not still_there(there)

    least = n_ended(family) + 3
    process = start()
    wait_for(family, process, lambda: len(actors(process)) == 2)
    there = actors(process)
    wait_for(family, process, lambda: n_ended(family) >= least)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - began < 10
    assert not still_there(there)

    process = start()
    assert process.wait(timeout=STARTS) == 0, (family / "said").read_text()
    said = (family / "said").read_text()
    assert "Traceback" not in said, said
    assert "died: " in said
    assert "(raylet)" not in said  # a line of ours in place of Ray's dozen
    assert "stopped; run the same command again to go on" in said

    run = family / "run"
    study = open_study(run, study_name(prepare(space), run))
    done = finished(study)
    assert len(done) == N_TRIALS
    assert not running(study)
    assert most_scored(run) == 1
    record = Record(run, writable=False)
    assert [trial.number for trial in record.trials] == sorted(trial.number for trial in done)
    assert {row.label for row in record.rows} >= {"winner", "base", "one", "two", "uniform soup"}
    assert [one.number for one in record.passes] == [1, 2]  # a trajectory that a worker learned
    live = LiveModel(Parents(space.models), torch.device("cpu"))
    for recipe_hash in record.recipe_hashes[::4]:
        assert live.become(record.recipe(recipe_hash)) == record.digest_of(recipe_hash)
