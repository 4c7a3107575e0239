"""A search by Ray's workers, killed here and there: nothing is lost, doubled or left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
from mergesearch.space import SearchSpace
from tests.searching.test_kill import n_ended
from tests.searching.watch import load, most_scored, running

pytestmark = pytest.mark.slow

N_TRIALS = 80


def start(family: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mergesearch", "search", str(family / "space.yaml")]
    command += ["--out", str(family / "run"), "--device", "cpu", "--workers", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (family / "said").open("ab") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


def wait_for(family: Path, process: subprocess.Popen[bytes], holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not holds():
        assert process.poll() is None, (family / "said").read_text()
        assert time.monotonic() < deadline, (family / "said").read_text()
        time.sleep(0.01)


def workers(family: Path) -> list[int]:
    """The processes of workers that do something."""
    status = read_status(family / "run")
    names = list(status.workers) if status and status.is_alive else []
    return [int(found[1]) for name in names if (found := re.search(r"process (\d+)", name))]


def actors(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of all workers, whatever they do."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [one for one in below if one.cmdline()[:1] and "Actor" in one.cmdline()[0]]


def still_there(before: list[psutil.Process]) -> list[psutil.Process]:
    """Those that hold memory or a device after ten seconds."""
    _, alive = psutil.wait_procs(before, timeout=10)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_search_whose_workers_and_driver_are_killed_ends_as_it_should(family: Path) -> None:
    space = load(family, search={"trials": N_TRIALS})
    process = start(family)
    wait_for(family, process, lambda: n_ended(family) >= 2 and bool(workers(family)))
    victim = workers(family)[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(family, process, lambda: n_ended(family) >= 6)
    there = actors(process)
    assert there
    process.kill()  # the driver, and nobody tells its workers
    process.wait()
    assert not still_there(there)

    least = n_ended(family) + 3
    process = start(family)
    wait_for(family, process, lambda: len(actors(process)) == 2)
    there = actors(process)
    wait_for(family, process, lambda: n_ended(family) >= least)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - began < 10
    assert not still_there(there)

    process = start(family)
    assert process.wait(timeout=300) == 0, (family / "said").read_text()
    said = (family / "said").read_text()
    assert "Traceback" not in said, said
    assert "died: " in said
    assert "stopped; run the same command again to go on" in said

    run = family / "run"
    done = finished(open_study(run, study_name(prepare(space), run)))
    assert len(done) == N_TRIALS
    assert not running(open_study(run, study_name(prepare(space), run)))
    assert most_scored(run) == 1
    record = Record(run, writable=False)
    assert [trial.number for trial in record.trials] == sorted(trial.number for trial in done)
    assert {row.label for row in record.rows} >= {"winner", "base", "one", "two", "uniform soup"}
    live = LiveModel(Parents(space.models), torch.device("cpu"))
    for recipe_hash in record.recipe_hashes[::8]:
        assert live.become(record.recipe(recipe_hash)) == record.digest_of(recipe_hash)


def test_a_trajectory_is_learned_by_a_worker(family: Path) -> None:
    methods = {"learned": {"of": "task_arithmetic", "passes": 2, "documents": 4}, "linear": {}}
    load(family, methods=methods, search={"trials": 6})
    process = start(family)
    assert process.wait(timeout=300) == 0, (family / "said").read_text()
    record = Record(family / "run", writable=False)
    assert [one.number for one in record.passes] == [1, 2]
    assert len(record.trials) == 6
    assert SearchSpace.load(family / "space.yaml").learned is not None
