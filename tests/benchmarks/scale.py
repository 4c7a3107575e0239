"""Merges a family of 1.1 billion parameters under a budget, beside mergekit.

    python -m tests.benchmarks.scale [--size 1b] [--budget 6GB] [--models FOLDER] [--out FOLDER]

A base and three parents in bfloat16 are made at random, in shards; they are gone afterwards, unless
a folder for them is named. Writes scale.json and scale.md.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mergesearch.recipe import read_recipe, write_recipe
from tests.benchmarks import peer
from tests.benchmarks.cases import CASES
from tests.benchmarks.family import Family, make_family
from tests.benchmarks.merge import machine

METHODS = ("task_arithmetic", "ties")
GOAL = 0.1

# What a search does with a candidate before it is scored: a plan, and two merges into one model.
_LIVE = """
import sys
from pathlib import Path
import torch
from mergesearch import load_recipe
from mergesearch.merging import LiveModel, conversion_of, merging_bytes, plan_merge
from mergesearch.parents import Parents
from mergesearch.runtime import n_bytes

recipe = load_recipe(Path(sys.argv[1]))
parents = Parents.of(recipe, memory_budget=n_bytes(sys.argv[2]))
plan = plan_merge(recipe, parents)
conversion_of(plan)  # what is imported for it is held before the plan is made
live = LiveModel(parents, torch.device("cpu"), torch.bfloat16)
print(parents.reserve({
    "merging": merging_bytes(plan, parents, streamed=False),
    "live model": plan.n_entries * torch.bfloat16.itemsize,
}))
print(live.become(recipe), live.become(recipe))
"""


@dataclass(frozen=True)
class Row:
    """One process, and the peak that it had planned."""

    method: str
    program: str
    seconds: float
    #: The largest resident set.
    peak_bytes: int
    #: None for mergekit, which has no plan.
    planned_bytes: int | None = None

    @property
    def ratio(self) -> float | None:
        """The peak over the plan."""
        return self.peak_bytes / self.planned_bytes if self.planned_bytes else None


def measure(family: Family, method: str, budget: str) -> list[Row]:
    """Merge by one method to disk, into a live model, and by mergekit."""
    with tempfile.TemporaryDirectory(prefix="scale-", dir=family.folder) as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(
            write_recipe(read_recipe(CASES[method].recipe(0)).resolved(family.folder))
        )
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
        python = sys.executable
        commands: dict[str, Sequence[str | Path]] = {
            "mergesearch merge": [
                python, "-m", "mergesearch", "merge", recipe, ours, "--memory-budget", budget,
            ],
            "two candidates in a live model": [python, "-c", _LIVE, recipe, budget],
        }  # fmt: skip
        if peer.EXECUTABLE.exists():
            commands["mergekit-yaml --lazy-unpickle"] = [
                peer.EXECUTABLE, recipe, theirs, "--quiet", "--device", "cpu", "--lazy-unpickle",
            ]  # fmt: skip
        return [_run(method, program, command) for program, command in commands.items()]


def _run(method: str, program: str, command: Sequence[str | Path]) -> Row:
    """Run a process.

    Raises:
        RuntimeError: it failed.
    """
    print(f"{method}: {program}", flush=True)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", peer.LAUNCHER, *command],
        env=peer.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stderr[-3000:]}")
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    planned = re.search(r"memory plan: peak ([\d.]+) GB", done.stderr)
    row = Row(method, program, seconds, int(peak), planned and int(float(planned[1]) * 1e9))
    print(f"  {seconds:.0f} s, {peak / 1e9:.2f} GB of {planned and planned[1]}", flush=True)
    return row


def markdown(report: dict[str, Any], rows: Sequence[Row]) -> str:
    """Lay the report out."""
    lines = [
        "# Merging under a budget",
        "",
        f"Measured by `{report['command']}` on {report['machine']['cpu']}, "
        f"{report['machine']['threads']} thread(s), torch {report['machine']['torch']}, "
        f"mergekit {report['machine']['mergekit']}.",
        "",
        f"A base and three parents of {report['n_entries'] / 1e9:.2f} billion random parameters, "
        f"bfloat16, {report['n_bytes'] / 1e9:.1f} GB in shards; budget {report['budget']}. *Plan* "
        "is the peak that the memory plan says before the merge, *peak* the largest resident set "
        "of the process (`wait4`), mapped pages included. The live model is bfloat16, too.",
        "",
        "| method | program | whole process, s | plan, GB | peak, GB | peak / plan | goal |",
        "|:--|:--|--:|--:|--:|--:|:--|",
    ]
    for row in rows:
        planned, ratio, met = "", "", ""
        if row.planned_bytes is not None and row.ratio is not None:
            planned, ratio = f"{row.planned_bytes / 1e9:.2f}", f"{row.ratio:.2f}"
            met = "met" if abs(row.ratio - 1) <= GOAL else "not met"
        lines.append(
            f"| {row.method} | {row.program} | {row.seconds:.0f} | {planned} | "
            f"{row.peak_bytes / 1e9:.2f} | {ratio} | {met} |"
        )
    return "\n".join([*lines, "", f"Goal: the peak within {GOAL:.0%} of the plan.", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale")
    parser.add_argument("--size", default="1b")
    parser.add_argument("--budget", default="6GB")
    parser.add_argument("--models", type=Path, help="where the models are kept; else nowhere")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args(arguments)
    kept = nullcontext(options.models)
    with kept if options.models else tempfile.TemporaryDirectory() as folder:
        family = make_family(Path(folder).resolve(), options.size, torch.bfloat16)
        rows = [row for name in METHODS for row in measure(family, name, options.budget)]
    report = {
        "command": f"python -m tests.benchmarks.scale --size {options.size} "
        f"--budget {options.budget}",
        "machine": machine(torch.device("cpu")),
        "n_entries": family.shape.n_entries,
        "n_bytes": 4 * family.shape.n_entries * family.dtype.itemsize,
        "budget": options.budget,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    data = {**report, "rows": [{**asdict(row), "peak_over_plan": row.ratio} for row in rows]}
    (options.out / "scale.json").write_text(json.dumps(data, indent=1) + "\n")
    (options.out / "scale.md").write_text(markdown(report, rows))
    print(options.out / "scale.md")


if __name__ == "__main__":
    main()
