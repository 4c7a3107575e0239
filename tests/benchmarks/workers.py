"""Several workers beside one: throughput, the driver's own work, what a budget buys, and kills.

    python -m tests.benchmarks.workers [--parts NAME ...] [--testbed FOLDER] [--work FOLDER]
        [--out FOLDER]

Each part is kept in workers.json, and measured anew where it is named. `throughput` needs two idle
cores; of the others, only the driver's part counts seconds. Writes workers.json and workers.md.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
import yaml

from mergesearch.demo import build_family
from mergesearch.merging import LiveModel
from mergesearch.parents import Parents
from mergesearch.report import entries_of
from mergesearch.runs import Record
from mergesearch.searching import prepare
from mergesearch.searching.goals import directions, goals_of
from mergesearch.searching.loop import Search
from mergesearch.searching.policies.sampling import sampler_of
from mergesearch.searching.runs import study_name
from mergesearch.searching.study import finished, open_study
from mergesearch.space import SearchSpace, suggest
from tests import tiny
from tests.benchmarks import searches
from tests.benchmarks.merge import machine
from tests.benchmarks.workloads import PREPARE
from tests.searching.test_kill import n_ended
from tests.searching.watch import SHAPE, RecordingObserver, most_scored, running
from tests.workers.simulated import SimulatedWorker, simulated
from tests.workers.test_ray import actors

_PARTS = ("throughput", "driver", "budget", "kills")
#: Seeds of searches over one demo family, by one worker and by two.
_SEEDS = range(8)
_N_KILLS, _N_DRIVER_KILLS = 100, 20
#: Of each search whose throughput is measured.
_N_CANDIDATES = 20
#: Seconds in which a search must go on after a kill.
_PATIENCE = 300.0


def throughput(testbed: Path, work: Path) -> dict[str, Any]:
    """Count finished candidates an hour on the test bed, by one worker and by two.

    Random recipes, each scored on the same 120 documents, without racing: as much work each. The
    clock runs from the first trial's beginning to the last one's end. A search before that does not
    count: formulas are compiled once for a host.
    """
    space = searches.testbed(testbed).space
    suite = space.load_suite()
    suite = suite.model_copy(
        update={
            "search": tuple(task.model_copy(update={"limit": 40}) for task in suite.search),
            "held_out": (),
        }
    )
    space = space.model_copy(update={"suite": suite})
    _rate(work / "compiling", space, 1, n_candidates=2)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for repetition in range(2):
        for n, of in rates.items():
            of.append(_rate(work / f"throughput-{n}-{repetition}", space, n))
    one = median(rates[1])
    with ThreadPoolExecutor() as pool:  # two searches that have nothing to do with each other
        apart = pool.map(lambda i: _rate(work / f"apart-{i}", space, 1), range(2))
    return {
        "candidates": _N_CANDIDATES,
        "rates": rates,
        "ratio": median(rates[2]) / one,
        "limit": sum(apart) / one,
    }


def _rate(
    folder: Path, space: SearchSpace, n_workers: int, n_candidates: int = _N_CANDIDATES
) -> float:
    """Search, and return the candidates an hour."""
    settings = {"trials": n_candidates, "sampler": "random", "racing": False, "seed": 0}
    _write_space(folder, space, settings)
    process = _start(folder, n_workers)
    _wait(process, folder, partial(_has_ended, folder, n_candidates), patience=1800.0)
    process.send_signal(signal.SIGINT)  # finalists and references are another matter
    process.wait()
    trials = finished(_study(folder))
    first = min(t.datetime_start for t in trials if t.datetime_start)
    last = max(t.datetime_complete for t in trials if t.datetime_complete)
    return len(trials) / (last - first).total_seconds() * 3600


def driver(work: Path) -> list[dict[str, Any]]:
    """Time the driver's own work a candidate: 32 workers sleep instead of merging and scoring."""
    rows = []
    for sampler, seconds in (("tpe", 0.05), ("random", 0.05), ("tpe", 1.0)):
        folder = work / f"driver-{sampler}-{seconds}"
        folder.mkdir(parents=True)
        tiny.family(folder)
        n = 2000 if seconds < 1 else 640
        settings = {"trials": n, "sampler": sampler, "seed": 1}
        space = _write_space(folder, SearchSpace.load(folder / "space.yaml"), settings)
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
    return rows


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


def budget(work: Path) -> dict[str, Any]:
    """Compare the held-out scores of winners for one budget, by one worker and by two."""
    family = work / "family-0"
    build_family(family, seed=0, progress=print)
    space = searches.demo(family).space
    found: dict[int, list[float]] = {1: [], 2: []}
    for seed in _SEEDS:
        for n, scores in found.items():
            folder = work / f"budget-{n}-{seed}"
            if not (folder / "done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                _write_space(folder, space, {"trials": 40, "seed": seed})
                _end(_start(folder, n), folder)
                (folder / "done").touch()
            winner = next(e for e in entries_of(folder / "run") if e.role == "winner")
            assert winner.held_out is not None
            scores.append(winner.held_out.total)
    leads = [two - one for one, two in zip(found[1], found[2], strict=True)]
    return {
        "held-out": found,
        "lead": mean(leads),
        "standard error": stdev(leads) / math.sqrt(len(leads)),
    }


def kills(work: Path) -> dict[str, Any]:
    """Kill workers and drivers of one demo search at random moments, and look at what is left."""
    family, folder = work / "family-0", work / "kills"
    build_family(family, seed=0, progress=print)
    # ended trials between two kills, and then a moment
    n_kills, pace = _N_KILLS + _N_DRIVER_KILLS, 4
    n_trials = (n_kills + 5) * pace
    space = _write_space(folder, searches.demo(family).space, {"trials": n_trials, "seed": 0})
    moments = random.Random(0)
    # every sixth is the driver
    victims = ["driver" if i % 6 == 5 else "worker" for i in range(n_kills)]
    process, counted = _start(folder, 2), {"worker": 0, "driver": 0}
    for number, victim in enumerate(victims):
        least = number * pace
        _wait(process, folder, partial(_has_ended, folder, least))
        time.sleep(moments.uniform(0, 2))
        if victim == "driver":
            process.kill()
            process.wait()
            process = _start(folder, 2)
            counted["driver"] += 1
            continue
        _wait(process, folder, partial(_pids, process))
        os.kill(moments.choice(_pids(process)), signal.SIGKILL)
        counted["worker"] += 1
    _end(process, folder)
    record, study = Record(folder / "run", writable=False), _study(folder)
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


def _write_space(folder: Path, space: SearchSpace, settings: Mapping[str, Any]) -> SearchSpace:
    """Write a space that is searched in another way into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    search = space.search.model_copy(update=dict(settings))
    data = space.model_copy(update={"search": search}).model_dump(mode="json", exclude_unset=True)
    (folder / "space.yaml").write_text(yaml.safe_dump(_as_written(data), sort_keys=False))
    return SearchSpace.load(folder / "space.yaml")


def _as_written(data: Any) -> Any:
    """Domains as a space has them: a value, a range or a list."""
    match data:
        case {"low": low, "high": high}:
            return [low, high]
        case {"values": values}:
            return list(values)
        case {"value": value}:
            return value
        case dict():
            return {key: _as_written(value) for key, value in data.items()}
        case list():
            return [_as_written(value) for value in data]
    return data


def _start(folder: Path, n_workers: int) -> subprocess.Popen[bytes]:
    """Start a search of a folder's space by workers of one thread each."""
    command = [sys.executable, "-m", "mergesearch", "search", str(folder / "space.yaml")]
    command += ["--out", str(folder / "run"), "--device", "cpu", "--workers", str(n_workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait():
        raise RuntimeError((folder / "said").read_text()[-3000:])


def _wait(
    process: subprocess.Popen[bytes],
    folder: Path,
    holds: Callable[[], object],
    patience: float = _PATIENCE,
) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((folder / "said").read_text()[-3000:])
        time.sleep(0.05)


def _has_ended(folder: Path, n: int) -> bool:
    return n_ended(folder) >= n


def _pids(process: subprocess.Popen[bytes]) -> list[int]:
    return [actor.pid for actor in actors(process)]


def _study(folder: Path) -> Any:
    space = SearchSpace.load(folder / "space.yaml")
    return open_study(folder / "run", study_name(prepare(space), folder / "run"))


def markdown(report: Mapping[str, Any]) -> str:
    """Lay the report out."""
    lines = [
        "# Several workers beside one",
        "",
        f"Made by `{report['command']}`, a part at a time.",
    ]
    if part := report.get("throughput"):
        lines += [
            "",
            "## Throughput",
            "",
            f"Test bed, {part['candidates']} random recipes of 120 documents each, workers of one "
            "thread; finished candidates an hour, median of two runs in turn.",
            "",
            "| workers | candidates an hour |",
            "|--:|--:|",
            *(f"| {n} | {median(rates):.1f} |" for n, rates in part["rates"].items()),
            "",
            f"Ratio: **{part['ratio']:.2f}** (goal 1.8: "
            f"{'met' if part['ratio'] >= 1.8 else 'not met'}); load when it began "
            f"{part['load']:.1f} on {part['machine']['cores']} cores. Two searches of one worker "
            "each, side by side and with nothing in common, finish "
            f"{part['limit']:.2f} times the candidates of one: what these cores give.",
        ]
    if part := report.get("driver"):
        lines += [
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
        lines += [
            f"| {row['sampler']} | {row['seconds a candidate']} | {row['trials']} | "
            f"{row['milliseconds of CPU a candidate']:.1f} | {row['of Optuna alone']:.1f} | "
            f"{row['idle']:.0%} |"
            for row in part["rows"]
        ]
        lines += ["", f"Goal: 10 ms, 5 % idle. Load when it began: {part['load']:.1f}."]
    if part := report.get("budget"):
        lines += [
            "",
            "## The same budget",
            "",
            "The demo family, 40 trials; held-out of the winner.",
            "",
            "| seed | 1 worker | 2 workers |",
            "|--:|--:|--:|",
        ]
        pairs = zip(*part["held-out"].values(), strict=True)
        lines += [f"| {seed} | {a:.3f} | {b:.3f} |" for seed, (a, b) in enumerate(pairs)]
        lines += [
            "",
            f"Lead of two workers: {part['lead']:+.4f}, standard error "
            f"{part['standard error']:.4f}.",
        ]
    if part := report.get("kills"):
        named = {"workers killed": part["kills"]["worker"], "drivers": part["kills"]["driver"]}
        rest = {k: v for k, v in part.items() if k not in ("kills", "machine", "load")}
        lines += ["", "## SIGKILL at random moments of one demo search", "", "| | |", "|:--|--:|"]
        lines += [f"| {name} | {value} |" for name, value in {**named, **rest}.items()]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    file = options.out / "workers.json"
    report = json.loads(file.read_text()) if file.exists() else {}
    report["command"] = "python -m tests.benchmarks.workers"
    with tempfile.TemporaryDirectory(prefix="mergesearch-bench-") as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        testbed = (options.testbed or work / "testbed").resolve()
        for part in options.parts:
            began = {"machine": machine(torch.device("cpu")), "load": os.getloadavg()[0]}
            match part:
                case "throughput":
                    if not testbed.exists():
                        command = [sys.executable, str(PREPARE), str(testbed)]
                        subprocess.run(command, check=True, capture_output=True)
                    report[part] = {**throughput(testbed, work), **began}
                case "driver":
                    report[part] = {"rows": driver(work), **began}
                case "budget":
                    report[part] = {**budget(work), **began}
                case "kills":
                    report[part] = {**kills(work), **began}
            options.out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(report, indent=1) + "\n")
            report = json.loads(file.read_text())  # as the next will read it
            (options.out / "workers.md").write_text(markdown(report))
    print(options.out / "workers.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workers")
    parts = _PARTS if PREPARE.exists() else _PARTS[1:]
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(parts), metavar="NAME")
    parser.add_argument("--testbed", type=Path, help="where prepare.py laid out the test bed")
    parser.add_argument("--work", type=Path, help="where runs are kept, and found by `budget`")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser


if __name__ == "__main__":
    main()
