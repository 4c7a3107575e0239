"""A search of nearly every kind of candidate, trial by trial as version 0.1 ran it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mergesearch import SearchSpace, search
from mergesearch.recipe import write_recipe
from mergesearch.runs import Record
from tests import tiny

EXPECTED = json.loads((Path(__file__).parent / "same_trials.json").read_text(encoding="utf-8"))
SPACE = """\
base: models/base
parents:
  one: models/one
  two: models/two
  three: models/three
granularity: {blocks: 2, groups: [self_attn]}
methods:
  linear: {}
  task_arithmetic: {}
  ties: {}
  dare_ties: {}
  della_linear: {}
  breadcrumbs: {}
  slerp: {}
  sce: {}
  tsv_m: {}
  greedy_soup: {}
  stacking: {depth: [2, 6], segments: 2, scale: [0.5, 1.5]}
suite: suite.yaml
search: {trials: 30, seed: 3, startup: 12}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same")
    base = tiny.family(folder) / "models" / "base"
    tiny.llama(folder / "models" / "three", 3, base=base)
    for seed, name in enumerate(("first", "second", "third")):
        tiny.task(folder / "tasks", name, n_documents=60, seed=seed)
    (folder / "suite.yaml").write_text(tiny.SUITE.replace("limit: 8", "limit: 40"))
    (folder / "space.yaml").write_text(SPACE)
    search(SearchSpace.load(folder / "space.yaml"), folder / "run", device="cpu")
    return folder / "run"


def test_the_trials_are_those_of_version_0_1(run: Path) -> None:
    record = Record(run, writable=False)

    def entry(trial: Any) -> dict[str, Any]:
        key = trial.recipe_hash
        return {
            "number": trial.number,
            "method": trial.method,
            "score": trial.score,
            "share": trial.share,
            "error": trial.error,
            "tensors": key and record.digest_of(key),
            "recipe": key and write_recipe(record.recipe(key), run),
        }

    assert [entry(trial) for trial in record.trials] == EXPECTED["trials"]


def test_so_is_the_leaderboard(run: Path) -> None:
    record = Record(run, writable=False)
    rows = [[row.label, row.role, record.digest_of(row.recipe_hash)] for row in record.rows]
    assert rows == EXPECTED["rows"]
