import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from mergesearch.api import search
from mergesearch.errors import InputError
from mergesearch.exporting import RECIPE_FILE, export
from mergesearch.recipe import load_recipe
from mergesearch.report import entries_of
from mergesearch.runs import Record
from mergesearch.searching.study import TOTAL, best_before, enqueue, open_study
from mergesearch.space import SearchSpace
from tests import tiny
from tests.searching.watch import RecordingObserver, load, most_scored, scored

#: Searches as the command line does, in blocks of 3 documents, until so many blocks are kept.
DRIVER = """
import os, signal, sys
from mergesearch.cli import main
from mergesearch.evaluation import evaluator
from mergesearch.runs import Documents

evaluator._BLOCK = 3
left, add = int(sys.argv.pop(1)), Documents.add

def add_and_die(self, *block):
    global left
    add(self, *block)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

Documents.add = add_and_die
main()
"""


def kill_after(n_blocks: int, family: Path) -> None:
    """Search in a process of its own, and kill it when it has scored so many more blocks."""
    command = ["search", str(family / "space.yaml"), "--out", str(family / "run")]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(n_blocks), *command, "--device", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def suite(folder: Path, search: str, held_out: str = "{task: third, metric: acc}") -> SearchSpace:
    (folder / "suite.yaml").write_text(
        f"include_path: tasks\nsearch: [{search}]\nheld_out: [{held_out}]\n"
    )
    return SearchSpace.load(folder / "space.yaml")


FIRST = "{task: first, metric: acc}"


def trials_of(run: Path) -> dict[str, float | None]:
    """The score of each recipe that a trial of the present search tried."""
    trials = Record(run, writable=False).trials
    return {trial.recipe_hash or "": trial.score for trial in trials}


@pytest.mark.parametrize(
    ("before", "after", "n_new"),
    [
        ("{task: first, metric: acc, limit: 7}", "{task: first, metric: acc, limit: 9}", {0, 2}),
        (FIRST, f"{FIRST}, {{task: second, metric: acc, limit: 8}}", {8}),
        (f"{FIRST}, {{task: second, metric: acc, weight: 2}}", FIRST, {0}),
    ],
    ids=["a longer limit", "a second task", "a task less"],
)
def test_a_search_on_another_suite_scores_only_what_is_new(
    family: Path, before: str, after: str, n_new: set[int]
) -> None:
    run = family / "run"
    search(suite(family, before), run, device="cpu")
    known, tried = scored(run), trials_of(run)
    assert len(entries_of(run)) > 4

    observer = RecordingObserver()
    search(suite(family, after), run, device="cpu", observer=observer)
    assert "the suite is not that of the trials before: " in " ".join(observer.stages)
    # whose trials are those of the search before, and cost what is new
    assert trials_of(run).keys() == tried.keys()
    assert {trial.n_documents for trial in observer.trials} == n_new
    assert [trial.number for trial in observer.trials] == list(range(8))
    assert known <= scored(run)
    assert most_scored(run) == 1
    names = ["first", "second"][: after.count("task:")]
    for entry in entries_of(run):
        assert entry.search is not None
        assert [task.id.task for task in entry.search.tasks] == names

    observer, kept = RecordingObserver(), scored(run)
    search(suite(family, before), run, device="cpu", observer=observer)
    assert (observer.trials, trials_of(run), scored(run)) == ([], tried, kept)


def test_a_suite_that_only_holds_out_otherwise_goes_on_with_the_search(family: Path) -> None:
    run = family / "run"
    search(suite(family, FIRST), run, device="cpu")
    tried, known = trials_of(run), scored(run)
    observer = RecordingObserver()
    both = "{task: third, metric: acc}, {task: second, metric: acc}"
    search(suite(family, FIRST, held_out=both), run, device="cpu", observer=observer)
    assert observer.trials == []
    assert trials_of(run) == tried
    new = scored(run) - known
    judged = [entry for entry in entries_of(run) if entry.held_out]
    assert len(new) == len({entry.digest for entry in judged}) * 12
    assert {len(entry.held_out.tasks) for entry in judged if entry.held_out} == {2}


def test_a_group_weighs_its_tasks_by_what_a_split_scores_of_them(family: Path) -> None:
    run = family / "run"
    tiny.task(family / "tasks", "long", n_documents=20)
    by_size = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    group = {"group": "both", "task": ["first", "long"], "aggregate_metric_list": [by_size]}
    (family / "tasks" / "both.yaml").write_text(json.dumps(group))
    load(family, search={"trials": 2})
    outcome = search(suite(family, "{task: both, metric: acc, limit: 6}"), run, device="cpu")
    splits = Record(run, writable=False).suite.splits
    terms = {
        split: [(t.id.group, t.id.task, t.n_documents, t.weight) for t in splits[split]]
        for split in ("search", "search_full")
    }
    assert terms == {
        "search": [("both", "first", 6, 0.5), ("both", "long", 6, 0.5)],
        "search_full": [("both", "first", 12, 12 / 32), ("both", "long", 20, 20 / 32)],
    }
    (winner,) = (entry for entry in entries_of(run) if entry.role == "winner")
    assert winner.search is not None
    assert winner.search.total == outcome.best.total


def test_the_trials_that_are_exported_are_those_of_the_present_search(family: Path) -> None:
    run, first, second = family / "run", family / "first", family / "second"
    load(family, search={"trials": 3})
    search(suite(family, FIRST), run, device="cpu")
    with pytest.raises(InputError, match=r"has no scored trial 3; there are 3: \[0, 1, 2\]"):
        export(run, first, trial=3)
    load(family, search={"trials": 4})
    search(suite(family, "{task: second, metric: acc}"), run, device="cpu")
    (folder,) = export(run, second, trial=3)
    wanted = Record(run, writable=False).trials[3].recipe_hash or ""
    dtypes = {"dtype": "float32", "out_dtype": "float32"}
    recipe = Record(run, writable=False).recipe(wanted)
    assert load_recipe(folder / RECIPE_FILE) == recipe.model_copy(update=dtypes)


def study(folder: Path, name: str, values: list[float]) -> optuna.Study:
    made = open_study(folder, name)
    for i, value in enumerate(values):
        made.enqueue_trial({"x": i / 100}, user_attrs={"label": f"{name} {i}"})
        scored_trial(made, value)
    return made


def scored_trial(of: optuna.Study, value: float) -> None:
    trial = of.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.set_user_attr(TOTAL, value)
    of.tell(trial, value)


def queued(of: optuna.Study) -> list[Any]:
    waiting = of.get_trials(states=(optuna.trial.TrialState.WAITING,))
    return [trial.system_attrs["fixed_params"]["x"] for trial in waiting]


def test_a_search_begins_with_the_best_of_the_runs_last_one(tmp_path: Path) -> None:
    study(tmp_path, "run-space-1", [0.5])
    study(tmp_path, "run-other-2", [0.9])  # of another run in one database
    study(tmp_path, "run-space-2", [(7 * i % 13) / 13 for i in range(13)])
    study(tmp_path, "run-space-3", [])
    best = best_before(tmp_path, "run-space-4")
    values = [trial.value for trial in best]
    assert values == [i / 13 for i in range(12, 2, -1)]
    new = open_study(tmp_path, "run-space-4")
    for _ in range(2):  # a kill may have come in between
        enqueue(new, best)
        assert queued(new) == [trial.params["x"] for trial in best]
    assert new.trials[0].user_attrs == {"label": best[0].user_attrs["label"]}
    # the last search is the one in which a trial ended last
    earlier = open_study(tmp_path, "run-space-1")
    scored_trial(earlier, 0.7)
    assert [trial.value for trial in best_before(tmp_path, "run-space-4")] == [0.7, 0.5]
    assert best_before(tmp_path, "run-third-1") == []


@pytest.mark.slow
def test_a_search_killed_in_the_middle_of_a_candidate_scores_only_the_rest(family: Path) -> None:
    run, file = family / "run", family / "run" / "documents.bin"
    space = load(family, search={"trials": 6, "racing": False})  # the starting points
    # a candidate is four blocks of each of two tasks: the first, and a part of the second
    kill_after(8 + 3, family)
    assert sum(scored(run).values()) == 20 + 8
    # the last block is torn, as by a kill while it was written
    file.write_bytes(file.read_bytes()[:-5])
    first = scored(run)
    assert sum(first.values()) == 20 + 5
    kill_after(3, family)  # in the same candidate, which comes first again
    second = scored(run)
    assert sum(second.values()) == 20 + 5 + 8
    assert first <= second

    observer = RecordingObserver()
    search(space, run, device="cpu", observer=observer)
    assert sorted(trial.n_documents for trial in observer.trials) == [20 - 5 - 8, 20, 20, 20, 20]
    assert second <= scored(run)
    assert most_scored(run) == 1
    # what it comes to is what it would have come to
    search(space, family / "whole", device="cpu")
    assert trials_of(run) == trials_of(family / "whole")


def test_a_search_interrupted_between_two_suites_queues_what_it_had_not(family: Path) -> None:
    run = family / "run"
    search(load(family, search={"trials": 3}), run, device="cpu")
    tried = trials_of(run)
    (family / "suite.yaml").write_text(tiny.SUITE.replace("weight: 2", "weight: 3"))
    for n in (3, 5):
        search(load(family, search={"trials": n}), run, device="cpu")
    assert len(trials_of(run)) == 5
    assert tried.keys() < trials_of(run).keys()
    assert most_scored(run) == 1
