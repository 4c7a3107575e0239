"""SIGKILL of workers and drivers of one search at random moments, and what is left then."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mergesearch.demo import build_family
from mergesearch.merging import LiveModel
from mergesearch.parents import Parents
from mergesearch.runs import Record
from mergesearch.searching.study import finished
from tests.benchmarks import searches
from tests.benchmarks.workers.searching import end, has_ended, start, study_of, wait, write_space
from tests.searching.watch import most_scored, running
from tests.workers.test_ray import actors

_N_KILLS, _N_DRIVER_KILLS = 100, 20


def measure(work: Path) -> dict[str, Any]:
    """Kill workers and drivers of one demo search at random moments, and look at what is left."""
    family, folder = work / "family-0", work / "kills"
    build_family(family, seed=0, progress=print)
    # ended trials between two kills, and then a moment
    n_kills, pace = _N_KILLS + _N_DRIVER_KILLS, 4
    n_trials = (n_kills + 5) * pace
    space = write_space(folder, searches.demo(family).space, {"trials": n_trials, "seed": 0})
    moments = random.Random(0)
    # every sixth is the driver
    victims = ["driver" if i % 6 == 5 else "worker" for i in range(n_kills)]
    process, counted = start(folder, 2), {"worker": 0, "driver": 0}
    for number, victim in enumerate(victims):
        least = number * pace
        wait(process, folder, partial(has_ended, folder, least))
        time.sleep(moments.uniform(0, 2))
        if victim == "driver":
            process.kill()
            process.wait()
            process = start(folder, 2)
            counted["driver"] += 1
            continue
        wait(process, folder, partial(_pids, process))
        os.kill(moments.choice(_pids(process)), signal.SIGKILL)
        counted["worker"] += 1
    end(process, folder)
    record, study = Record(folder / "run", writable=False), study_of(folder)
    numbers = sorted(trial.number for trial in finished(study))
    live = LiveModel(Parents(space.models), torch.device("cpu"))
    rebuilt = record.recipe_hashes[::25]
    return {
        "kills": counted,
        "trials asked for": n_trials,
        "trials ended": len(numbers),
        "trials in the record": len(record.trials),
        "trials doubled": len(numbers) - len(set(numbers)),
        "trials left open": len(running(study)),
        "trials failed": sum(trial.error is not None for trial in record.trials),
        "times the most scored document was scored": most_scored(folder / "run"),
        "recipes rebuilt": len(rebuilt),
        "of them to another hash": sum(
            live.become(record.recipe(key)) != record.digest_of(key) for key in rebuilt
        ),
    }


def _pids(process: subprocess.Popen[bytes]) -> list[int]:
    return [actor.pid for actor in actors(process)]


def lines(part: Mapping[str, Any]) -> list[str]:
    """Lay the part out."""
    named = {"workers killed": part["kills"]["worker"], "drivers": part["kills"]["driver"]}
    rest = {k: v for k, v in part.items() if k not in ("kills", "machine", "load")}
    text = ["", "## SIGKILL at random moments of one demo search", "", "| | |", "|:--|--:|"]
    text += [f"| {name} | {value} |" for name, value in {**named, **rest}.items()]
    return text
