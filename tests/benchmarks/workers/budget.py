"""What a budget buys by one worker and by two: the held-out score of the winner."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mergesearch.demo import build_family
from mergesearch.report import entries_of
from tests.benchmarks import searches
from tests.benchmarks.workers.searching import end, start, write_space

#: Of the searches over one demo family.
_SEEDS = range(8)


def measure(work: Path) -> dict[str, Any]:
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
                write_space(folder, space, {"trials": 40, "seed": seed})
                end(start(folder, n), folder)
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


def lines(part: Mapping[str, Any]) -> list[str]:
    """Lay the part out."""
    text = [
        "",
        "## The same budget",
        "",
        "The demo family, 40 trials; held-out of the winner.",
        "",
        "| seed | 1 worker | 2 workers |",
        "|--:|--:|--:|",
    ]
    pairs = zip(*part["held-out"].values(), strict=True)
    text += [f"| {seed} | {a:.3f} | {b:.3f} |" for seed, (a, b) in enumerate(pairs)]
    text += [
        "",
        f"Lead of two workers: {part['lead']:+.4f}, standard error {part['standard error']:.4f}.",
    ]
    return text
