"""Searches for several objectives, and racing, on real models: from the space to the export."""

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from safetensors.torch import load_file
from transformers import AutoConfig

from mergesearch.api import search
from mergesearch.errors import InputError
from mergesearch.exporting import export
from mergesearch.objectives import objective_of
from mergesearch.report import entries_of
from mergesearch.runs import Documents, Record
from mergesearch.runs.told import SHARE
from mergesearch.searching.goals import directions
from mergesearch.searching.runs import study_name
from mergesearch.searching.setup import prepare
from mergesearch.searching.study import finished, open_study
from mergesearch.space import SearchSpace
from tests import tiny
from tests.searching.test_documents import kill_after
from tests.searching.watch import Killed, RecordingObserver, load, most_scored, scored, tried

STACKS: dict[str, Any] = {"stacking": {"depth": [2, 6], "segments": 2}, "linear": {}}
SCORE_AND_SIZE = {"objectives": ["score", "size"], "trials": 12, "startup": 8, "seed": 1}


def study_of(space: SearchSpace, run: Path) -> optuna.Study:
    name = study_name(prepare(space), run)
    return open_study(run, name, directions=directions(space.search.objectives))


def longer_tasks(family: Path) -> None:
    """As many documents as racing needs."""
    for seed, name in enumerate(("first", "second")):
        tiny.task(family / "tasks", name, n_documents=60, seed=seed)
    suite = (family / "suite.yaml").read_text()
    (family / "suite.yaml").write_text(suite.replace("limit: 8", "limit: 40"))


def front(run: Path) -> list[tuple[float, ...]]:
    """The front's values in each objective, the winner's first: higher is better in all."""
    entries = [entry for entry in entries_of(run) if entry.role in ("winner", "front")]
    for entry in entries:
        for scores in (entry.search, entry.held_out):  # in full, whatever the suite's limits
            assert scores is not None
            assert {len(task.doc_ids) for task in scores.tasks} == {12}
    signs = {name: objective_of(name).sign for name in Record(run).trials[0].objectives}
    ordered = sorted(entries, key=lambda entry: entry.role != "winner")
    return [tuple(s * (e.value(name) or 0) for name, s in signs.items()) for e in ordered]


def assert_none_is_dominated(points: list[tuple[float, ...]]) -> None:
    for one in points:
        for other in points:
            assert one == other or any(a > b for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def searched_for_size(tmp_path_factory: pytest.TempPathFactory, _family: Path) -> Path:
    folder = Path(shutil.copytree(_family, tmp_path_factory.mktemp("size") / "family"))
    space = load(folder, methods=STACKS, search=SCORE_AND_SIZE)
    search(space, folder / "run", device="cpu")
    return folder


def test_a_depth_that_no_runs_of_layers_reach_is_refused_before_anything_runs(family: Path) -> None:
    for depth in (13, [10, 16]):
        space = load(family, methods={"stacking": {"depth": depth, "segments": 3}})
        with pytest.raises(InputError, match=r"stacking\.depth must be at most segments x layers"):
            prepare(space)


def test_the_front_of_score_and_size_is_scored_in_full_and_none_of_it_is_dominated(
    searched_for_size: Path,
) -> None:
    points = front(searched_for_size / "run")
    assert len(points) >= 2
    assert_none_is_dominated(points)
    assert points[0][0] == max(score for score, *_ in points)


def test_a_trial_of_a_search_for_size_has_that_of_its_checkpoint(
    searched_for_size: Path, tmp_path: Path
) -> None:
    run = searched_for_size / "run"
    record = Record(run, writable=False)
    stacks = [trial for trial in record.trials if trial.method.startswith("stacking")]
    assert len({trial.objectives["size"] for trial in stacks}) >= 3
    for trial in stacks[-2:]:
        (folder,) = export(run, tmp_path, trial=trial.number)
        tensors = load_file(folder / "model.safetensors")
        assert sum(t.numel() for t in tensors.values()) == trial.objectives["size"]
        layers = {name.split(".")[2] for name in tensors if ".layers." in name}
        assert AutoConfig.from_pretrained(folder).num_hidden_layers == len(layers)
    merges = {t.objectives["size"] for t in record.trials if t.method.startswith("linear")}
    assert len(merges) == 1


def test_the_front_of_two_tasks_is_what_is_best_at_one_of_them_or_between(family: Path) -> None:
    settings = {"objectives": ["first", "second"], "trials": 10}
    search(load(family, search=settings), family / "run", device="cpu")
    assert_none_is_dominated(front(family / "run"))
    for trial in Record(family / "run").trials:
        first, second = trial.objectives.values()
        assert trial.score == pytest.approx((first + 2 * second) / 3)


def test_a_search_for_other_objectives_is_another_run(searched_for_size: Path) -> None:
    space = load(
        searched_for_size, methods=STACKS, search={**SCORE_AND_SIZE, "objectives": "score"}
    )
    with pytest.raises(InputError, match="was made by another space"):
        search(space, searched_for_size / "run", device="cpu")


def assert_same(space: SearchSpace, run: Path, whole: Path) -> None:
    """What two runs came to is the same, and neither scored anything twice."""
    assert tried(study_of(space, run)) == tried(study_of(space, whole))
    assert most_scored(run) == most_scored(whole) == 1
    assert scored(run) == scored(whole)
    ours, theirs = Record(run, writable=False), Record(whole, writable=False)
    assert ours.rows == theirs.rows
    assert [(t.recipe_hash, t.score, t.share, t.objectives) for t in ours.trials] == [
        (t.recipe_hash, t.score, t.share, t.objectives) for t in theirs.trials
    ]


@pytest.mark.slow
def test_a_race_of_stacks_killed_in_the_middle_of_one_comes_to_the_same_front(
    family: Path,
) -> None:
    longer_tasks(family)
    space = load(family, methods=STACKS, search={**SCORE_AND_SIZE, "trials": 8, "startup": 5})
    kill_after(80, family)  # blocks of a task each, 24 to a candidate that is not stopped
    search(space, family / "run", device="cpu")
    search(space, family / "whole", device="cpu")
    assert_same(space, family / "run", family / "whole")


def test_a_race_killed_at_any_block_stops_the_same_candidates_at_the_same_documents(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer_tasks(family)
    space = load(family, search={"trials": 9, "startup": 6, "seed": 2})
    add, left = Documents.add, 0  # blocks until the process dies, 0 for never

    def add_and_die(self: Documents, *block: Any) -> None:
        nonlocal left
        add(self, *block)
        left -= 1
        if left == 0:
            raise Killed

    monkeypatch.setattr(Documents, "add", add_and_die)
    search(space, family / "whole", device="cpu")
    for n_blocks in (29, 3, 50):
        left = n_blocks
        with pytest.raises(Killed):
            search(space, family / "run", device="cpu")
    left = 0
    observer = RecordingObserver()
    search(space, family / "run", device="cpu", observer=observer)
    assert observer.trials
    shares = [t.user_attrs[SHARE] for t in finished(study_of(space, family / "run"))]
    assert 1 in shares and min(shares) < 1
    assert_same(space, family / "run", family / "whole")
