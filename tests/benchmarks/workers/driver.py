"""The driver's own work a candidate, by workers that sleep, beside what Optuna takes alone."""

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergesearch.searching.goals import directions, goals_of
from mergesearch.searching.loop import Search
from mergesearch.searching.policies.sampling import sampler_of
from mergesearch.searching.study import open_study
from mergesearch.space import SearchSpace, suggest
from tests import tiny
from tests.benchmarks.workers.searching import write_space
from tests.searching.watch import SHAPE, RecordingObserver
from tests.workers.simulated import SimulatedWorker, simulated


def measure(work: Path) -> dict[str, Any]:
    """Time the driver's own work a candidate: 32 workers sleep instead of merging and scoring."""
    rows = []
    for sampler, seconds in (("tpe", 0.05), ("random", 0.05), ("tpe", 1.0)):
        folder = work / f"driver-{sampler}-{seconds}"
        folder.mkdir(parents=True)
        tiny.family(folder)
        n = 2000 if seconds < 1 else 640
        settings = {"trials": n, "sampler": sampler, "seed": 1}
        space = write_space(folder, SearchSpace.load(folder / "space.yaml"), settings)
        workers = [SimulatedWorker(f"worker {i}", seconds=seconds) for i in range(32)]
        candidates = simulated(folder / "run", space, workers)
        goals = directions(space.search.objectives)
        study = open_study(folder / "run", "study", directions=goals)
        search = Search(
            study, space, goals_of(space, candidates), candidates, SHAPE, RecordingObserver()
        )
        wall, cpu = time.perf_counter(), time.process_time()
        search.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        busy = sum(worker.busy_seconds for worker in workers)
        rows.append(
            {
                "sampler": sampler,
                "seconds a candidate": seconds,
                "trials": n,
                "milliseconds of CPU a candidate": 1000 * cpu / n,
                "of Optuna alone": 1000 * _optuna_alone(folder / "alone", space) / n,
                "idle": 1 - busy / (len(workers) * wall),
            }
        )
    return {"rows": rows}


def _optuna_alone(folder: Path, space: SearchSpace) -> float:
    """Measure CPU seconds of as many trials that are asked for, suggested, and told a number."""
    folder.mkdir()
    study = open_study(folder, "study", directions=directions(space.search.objectives))
    sampler, values = sampler_of(space), random.Random(0)
    began = time.process_time()
    for number in range(space.search.trials):
        study.sampler = sampler.make(space.search.seed, number, n_startup=10)
        trial = study.ask()
        suggest(space, trial, SHAPE)
        study.tell(trial, [values.random()])
    return time.process_time() - began


def lines(part: Mapping[str, Any]) -> list[str]:
    """Lay the part out."""
    text = [
        "",
        "## The driver's own work",
        "",
        "32 workers that sleep in place of merging and scoring; two tasks, ten blocks a "
        "candidate, each on disk before the next. CPU time of the driver's process, and of one "
        "that only asks Optuna for as many trials and tells it a number: what the sampler and "
        "its journal take.",
        "",
        "| sampler | a candidate takes, s | trials | driver's CPU a candidate, ms | "
        "Optuna alone, ms | idle |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    text += [
        f"| {row['sampler']} | {row['seconds a candidate']} | {row['trials']} | "
        f"{row['milliseconds of CPU a candidate']:.1f} | {row['of Optuna alone']:.1f} | "
        f"{row['idle']:.0%} |"
        for row in part["rows"]
    ]
    text += ["", f"Goal: 10 ms, 5 % idle. Load when it began: {part['load']:.1f}."]
    return text
