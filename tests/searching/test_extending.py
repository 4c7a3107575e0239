"""A sampler and an objective of another package, from its entry points to the leaderboard."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.searching.watch import load

PACKAGE = """\
from optuna.samplers import RandomSampler

from mergesearch.objectives import Objective
from mergesearch.samplers import Sampler


def make(seed, n_before, n_startup):
    return RandomSampler(seed + n_before)


def weight(candidate):
    return sum(s.parameters.get("weight", 0.0) for s in candidate.recipe.slices[0].sources)


SAMPLER = Sampler("others:make", several_objectives=False, conditional=False)
WEIGHT = Objective(weight, direction="minimize", header="sum of weights", show="w={:.2f}".format)
"""
ENTRY_POINTS = """\
[mergesearch.samplers]
theirs = others:SAMPLER
broken = others:NO_SUCH

[mergesearch.objectives]
weight = others:WEIGHT
"""


def run(family: Path, code: str) -> str:
    """Run Python where the other package is installed, and return what it prints."""
    site = family / "site"
    info = site / "others-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (site / "others.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        cwd=family,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_package_adds_a_sampler_and_an_objective_by_a_row_each(family: Path) -> None:
    methods: dict[str, Any] = {"task_arithmetic": {}}
    goals = {"objectives": ["score", "weight"], "constraints": ["weight <= 1.5"]}
    load(family, methods=methods, search={"sampler": "random", "trials": 8, "seed": 1, **goals})
    code = """
import json
from pathlib import Path
from typing import Any
from mergesearch import InputError, SearchSpace, search
from mergesearch.report import entries_of, leaderboard
from mergesearch.runs import Record
from mergesearch.space import SearchSettings

space = SearchSpace.load(Path("space.yaml"))
search(space, Path("run"), device="cpu")
trials = [(t.objectives, t.feasible) for t in Record(Path("run"), writable=False).trials]
entries = entries_of(Path("run"))
errors = []
for changes in (
    {"sampler": "broken"},
    {"sampler": "thiers"},
    {"objectives": ["weight"]},
    {"sampler": "theirs"},
    {"sampler": "theirs", "objectives": ["score"]},
):
    try:
        settings = SearchSettings(**{**dict(space.search), **changes})
        SearchSpace(**{**dict(space), "search": settings})
    except (ValueError, InputError) as error:
        errors.append(str(error))
    else:
        errors.append("")
print(json.dumps([trials, leaderboard(entries, "md"), errors]))
"""
    trials, table, errors = json.loads(run(family, code))
    assert [set(objectives) for objectives, _ in trials] == [{"score", "weight"}] * 8
    assert {kept for _, kept in trials} == {True, False}
    assert all(kept is (objectives["weight"] <= 1.5) for objectives, kept in trials)
    assert "sum of weights" in table and "w=" in table
    broken, unknown, alone, several, one = errors
    assert broken.startswith("plugin 'broken' of others (mergesearch.samplers = others:NO_SUCH)")
    assert "unknown sampler 'thiers'; did you mean 'theirs'?" in unknown
    assert "the weight alone is no objective; add score or a task" in alone
    assert "sampler theirs searches one objective, got score, weight" in several
    assert one == ""
