"""Throughput: finished candidates an hour by one worker, by two, and by two searches apart."""

import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from mergesearch.searching.study import finished
from mergesearch.space import SearchSpace
from tests.benchmarks import searches
from tests.benchmarks.workers.searching import has_ended, start, study_of, wait, write_space

#: Of each search that is measured.
_N_CANDIDATES = 20


def measure(testbed: Path, work: Path) -> dict[str, Any]:
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
    write_space(folder, space, settings)
    process = start(folder, n_workers)
    wait(process, folder, partial(has_ended, folder, n_candidates), patience=1800.0)
    process.send_signal(signal.SIGINT)  # finalists and references are another matter
    process.wait()
    trials = finished(study_of(folder))
    first = min(t.datetime_start for t in trials if t.datetime_start)
    last = max(t.datetime_complete for t in trials if t.datetime_complete)
    return len(trials) / (last - first).total_seconds() * 3600


def lines(part: Mapping[str, Any]) -> list[str]:
    """Lay the part out."""
    return [
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
