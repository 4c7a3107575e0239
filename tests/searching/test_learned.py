"""Learned coefficients in a search, and as a verb."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mergesearch import export, learn, search
from mergesearch.cli.app import app
from mergesearch.errors import InputError
from mergesearch.report import entries_of, verdict
from mergesearch.runs import PassEntry, Record, TrialRecord
from mergesearch.searching import open_run, open_search
from mergesearch.space import SearchSpace
from tests import tiny
from tests.searching.watch import Killed, RecordingObserver, load

pytestmark = pytest.mark.slow

LEARNED = {"passes": 3, "batch": 4, "learning_rate": 0.1}
#: Documents of `second` that its limit of 8 leaves over are 4; `first` has no limit, and 12.
N_LESSONS = 16


class DyingObserver(RecordingObserver):
    """Kills a search after so many passes."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self._passes = passes

    def stage(self, text: str) -> None:
        super().stage(text)
        if text.startswith(f"pass {self._passes}/"):
            raise Killed


def learning(family: Path, **changes: Any) -> SearchSpace:
    methods = {"learned": {**LEARNED, **changes.pop("learned", {})}, "task_arithmetic": {}}
    return load(family, methods=methods, **{"search": {"trials": 6}, **changes})


def passes(run: Path) -> tuple[PassEntry, ...]:
    return Record(run, writable=False).passes


def trials(run: Path) -> tuple[TrialRecord, ...]:
    return Record(run, writable=False).trials


def test_it_is_the_first_start_and_a_candidate_like_any_other(family: Path) -> None:
    observer = RecordingObserver()
    space, run = learning(family, search={"trials": 8, "refine": 0.5}), family / "run"
    outcome = search(space, run, observer=observer, device="cpu")
    first, last, *others = observer.trials
    assert first.method == "learned (pass 1 as it is)"
    assert last.method == "learned (pass 3 as it is)"
    unchanged = {"learned.pull": 0.0, "learned.scale.one": 1.0, "learned.scale.two": 1.0}
    assert first.params == {"method": "learned", "learned.pass": 1, **unchanged}
    assert last.params == {"method": "learned", "learned.pass": 3, **unchanged}
    assert first.n_documents == 3 * N_LESSONS + 20
    assert 2 * 3 * N_LESSONS < last.n_documents <= 2 * 3 * N_LESSONS + 20
    assert all(trial.n_documents <= 20 for trial in others)  # the trajectory is there
    assert [one.number for one in passes(run)] == [1, 2, 3]
    assert [one.n_answers for one in passes(run)] == [3 * N_LESSONS] * 3
    assert set(passes(run)[0].losses) == {"first", "second"}
    assert outcome.best.total >= max(t.score for t in observer.trials if t.is_whole and t.score)
    export(run, trial=0)  # what is rebuilt is what was scored


def test_learning_lowers_the_loss(family: Path) -> None:
    run = family / "run"
    learn(learning(family, learned={"passes": 6}), run, device="cpu")
    losses = [sum(one.losses.values()) for one in passes(run)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("loss", ["labels", "parents"])
def test_a_search_killed_in_a_trajectory_goes_on_in_it(family: Path, loss: str) -> None:
    space = learning(family, learned={"loss": loss})
    search(space, family / "whole", device="cpu")
    observer = DyingObserver(passes=2)
    with pytest.raises(Killed):
        search(space, family / "run", observer=observer, device="cpu")
    assert len(passes(family / "run")) == 2
    after = RecordingObserver()
    search(space, family / "run", observer=after, device="cpu")
    (line,) = (line for line in after.stages if line.startswith("learning "))
    assert line.endswith("pass 3 of 3")
    assert [one.losses for one in passes(family / "run")] == [
        one.losses for one in passes(family / "whole")
    ]
    assert [(t.recipe_hash, t.score) for t in trials(family / "run")] == [
        (t.recipe_hash, t.score) for t in trials(family / "whole")
    ]


def test_passes_count_in_the_budget(family: Path) -> None:
    space = learning(family, search={"trials": 50, "documents": 300, "racing": False})
    with open_run(space, family / "run") as (setup, candidates):
        history = open_search(setup, candidates).run()
    taken = sum(trial.n_documents for trial in history.trials)
    assert 300 <= taken < 320
    assert taken == 3 * 3 * N_LESSONS + len({t.recipe_hash for t in history.trials}) * 20


def test_a_kill_in_a_trajectory_changes_no_budget(family: Path) -> None:
    space = learning(family, search={"trials": 50, "documents": 300, "racing": False})
    taken = []
    for run, kills in ((family / "whole", False), (family / "killed", True)):
        if kills:
            with pytest.raises(Killed):
                search(space, run, observer=DyingObserver(passes=2), device="cpu")
        with open_run(space, run) as (setup, candidates):
            history = open_search(setup, candidates).run()
        taken.append((history.n_documents, [trial.recipe_hash for trial in history.trials]))
    assert taken[0] == taken[1]


def test_without_labels_the_best_parent_is_imitated(family: Path) -> None:
    observer = RecordingObserver()
    run = family / "run"
    search(learning(family, learned={"loss": "parents"}), run, observer=observer, device="cpu")
    # its own answers, of the parents that are scored to find the experts, and the parents'
    assert observer.trials[0].n_documents == 3 * N_LESSONS + N_LESSONS + 2 * 20 + 20
    lines = [line for line in observer.stages if line.startswith("learning ")]
    assert lines == [
        "learning 76 coefficients of task_arithmetic from 12 of first, 4 of second, by parents: "
        f"pass {number} of 3"
        for number in (1, 2, 3)
    ]


def test_the_suite_may_name_the_experts(family: Path) -> None:
    suite = tiny.SUITE.replace("metric: acc}", "metric: acc, expert: two}", 1)
    suite = suite.replace("limit: 8}", "limit: 8, expert: one}")
    (family / "suite.yaml").write_text(suite)
    observer = RecordingObserver()
    space = learning(family, learned={"loss": "parents"})
    search(space, family / "run", observer=observer, device="cpu")
    assert observer.trials[0].n_documents == 3 * N_LESSONS + N_LESSONS + 20  # none to be scored
    (family / "suite.yaml").write_text(suite.replace("expert: two", "expert: tow"))
    with pytest.raises(InputError, match=r"task 'first': unknown expert 'tow'; did you mean 'two'"):
        search(space, family / "other", device="cpu")


def test_the_report_says_where_it_learned_what_it_searches(family: Path) -> None:
    run = family / "run"
    observer = RecordingObserver()
    search(learning(family), run, observer=observer, device="cpu")
    told = "documents that candidates are scored on, of first: search scores are no estimate"
    assert told in verdict(entries_of(run))
    assert any("learned from the documents" in line for line in observer.stages)
    suite = tiny.SUITE.replace("metric: acc}", "metric: acc, limit: 6}", 1)
    (family / "suite.yaml").write_text(suite)
    search(learning(family), family / "other", device="cpu")
    assert told not in verdict(entries_of(family / "other"))


def test_documents_that_are_held_out_too_are_left_out_and_counted(family: Path) -> None:
    tiny.task(family / "tasks", "fourth", seed=9)
    tiny.task(family / "tasks", "fifth", seed=9, n_documents=4)  # its first four
    suite = tiny.SUITE.replace("task: third", "task: fifth")
    suite += "learn:\n  - {task: fourth, metric: acc}\n"
    (family / "suite.yaml").write_text(suite)
    observer = RecordingObserver()
    search(learning(family), family / "run", observer=observer, device="cpu")
    assert "not learned from, since held-out has the same text: 4 documents" in observer.stages
    assert passes(family / "run")[0].n_answers == 3 * 8


def test_learn_tasks_are_learned_from(family: Path) -> None:
    tiny.task(family / "tasks", "fourth", seed=9)
    suite = tiny.SUITE + "learn:\n  - {task: fourth, metric: acc, limit: 6}\n"
    (family / "suite.yaml").write_text(suite)
    search(learning(family), family / "run", device="cpu")
    assert [set(one.losses) for one in passes(family / "run")] == [{"fourth"}] * 3
    assert passes(family / "run")[0].n_answers == 18


@pytest.mark.parametrize("loss", ["labels", "parents"])
def test_passes_take_other_documents_while_there_are_some(family: Path, loss: str) -> None:
    learned = {"loss": loss, "documents": 5, "passes": 4}
    with open_run(learning(family, learned=learned), family / "run") as (setup, candidates):
        assert setup.curriculum is not None
        search = open_search(setup, candidates)
        search.run()
        taken = [dict(setup.curriculum.of_pass(n).documents) for n in range(1, 5)]
        n_known = candidates.record.n_answers_learning
    first, second = taken[0]
    ids = [of[first] for of in taken]
    assert [len(of) for of in ids] == [5] * 4
    assert len({*ids[0], *ids[1], *ids[2]}) == 12  # of all, before any comes again
    assert ids[2][2:] == ids[0][:3]
    assert [sorted(of[second]) for of in taken] == [sorted(taken[0][second])] * 4
    # of `second` the parent is asked once, for its four documents are the same
    assert n_known == setup.curriculum.n_answers == 4 * 3 * 9 + (loss == "parents") * (4 * 5 + 4)


def test_a_range_of_learning_rates_is_three_trajectories(family: Path) -> None:
    space = learning(
        family,
        learned={"learning_rate": [0.01, 0.1], "passes": 1},
        search={"trials": 30, "startup": 30},
    )
    search(space, family / "run", device="cpu")
    labels = {one.label.rpartition(" ")[2] for one in passes(family / "run")}
    assert labels == {"0.01", "0.0316228", "0.1"}


@pytest.mark.parametrize(
    "of",
    ["linear", "ties", "dare_linear", "della", "breadcrumbs_ties", "tsv_m", "iso_c", "magmax"],
)
def test_other_methods_are_learned_of(family: Path, of: str) -> None:
    run = family / "run"
    learn(learning(family, learned={"of": of, "passes": 1}), run, device="cpu")
    (entry,) = [entry for entry in entries_of(run) if entry.label == "learned"]
    assert entry.recipe.merge_method == of
    assert entry.recipe.parameters or entry.recipe.slices[0].sources[0].parameters


def test_as_a_verb_it_ends_like_a_soup(family: Path) -> None:
    space = learning(family)
    run = family / "run"
    search(space, run, device="cpu")
    n = len(passes(run))
    outcome = learn(space, run, device="cpu")
    assert len(passes(run)) == n  # a search's passes are there
    labels = {entry.label for entry in entries_of(run)}
    assert {"learned", "winner", "one", "two", "base", "uniform soup"} <= labels
    other = learn(load(family), family / "other", device="cpu")  # of a space that says nothing
    assert other.best.recipe.merge_method == "task_arithmetic"
    assert verdict(entries_of(family / "other")).count("The learned") == 2
    (folder,) = export(family / "other")
    assert folder.name == "top-1"
    assert outcome.best.recipe.hash in Record(run, writable=False).recipe_hashes


def test_prompts_alone_will_do(family: Path) -> None:
    (family / "one.txt").write_text("w1 w2 w3\nw4 w5\n\nw6 w7 w8\n")
    (family / "two.jsonl").write_text('{"prompt": "w9 w1"}\n"w3 w4"\n')
    text = tiny.SPACE.replace("suite: suite.yaml\n", "")
    (family / "space.yaml").write_text(text)
    run = family / "run"
    command = ["learn", str(family / "space.yaml"), "--out", str(run), "--device", "cpu"]
    command += ["--prompts", f"one={family / 'one.txt'}", "--prompts", f"two={family}/two.jsonl"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert set(passes(run)[0].losses) == {"one", "two"}
    # one of the five writes nothing; each is asked to write, and four for what they predict
    assert passes(run)[0].n_answers == 3 * 4 + 4 + 5
    (entry,) = entries_of(run)
    assert (entry.label, entry.search) == ("learned", None)
    (folder,) = export(run)
    assert (folder / "config.json").exists()
    assert "there are no prompts for" not in result.output

    command[command.index(str(run))] = str(family / "other")
    result = CliRunner().invoke(app, command[:-2], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "there are no prompts for two: what no other parent can do" in said


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a method that is not differentiable": (
        {"methods": {"learned": {"of": "karcher"}}},
        "methods: learned: of: coefficients are learned of a method that is differentiable in "
        "them, and karcher is not; take one of linear,",
    ),
    "no method": (
        {"methods": {"learned": {"of": "task_arithmetics"}}},
        "did you mean 'task_arithmetic'?",
    ),
    "no base": (
        {"base": None, "methods": {"learned": {}, "linear": {}}},
        "learned: task_arithmetic needs a base; name the common ancestor of the parents",
    ),
    "a method of two": (
        {"methods": {"learned": {"of": "nearswap"}}},
        "learned: nearswap must take all 2 parents, but it takes 1; learn of another method",
    ),
    "a fixed weight": (
        {"methods": {"learned": {"parameters": {"weight": 0.5}}}},
        "parameters.weight is learned, so it must be a range [low, high], got 0.5",
    ),
    "a range for what is not learned": (
        {"methods": {"learned": {"of": "ties", "parameters": {"density": [0.2, 0.8]}}}},
        "parameters.density is not learned, so it must be a value, got [0.2, 0.8]; what is learned "
        "of ties is weight",
    ),
    "an unknown parameter": (
        {"methods": {"learned": {"parameters": {"wieght": [0, 1]}}}},
        "unknown parameter of task_arithmetic 'wieght'; did you mean 'weight'?",
    ),
    "a budget that learning takes": (
        {"methods": {"learned": {}}, "search": {"documents": 100}},
        "learned: 3 passes of 16 documents take 144 answers, of a budget of 100 documents; lower",
    ),
    "no range": (
        {"methods": {"learned": {"pull": [0.5, 0.1]}}},
        "a range is [low, high] with low <= high, got [0.5, 0.1]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(family: Path, name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(InputError) as error:
        search(load(family, **changes), family / "run", device="cpu")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (family / "run").exists()


PROMPTS = {
    "none=x.txt": "prompts: unknown parent 'none'; did you mean 'one'? available: one, two",
    "one": "--prompts is PARENT=FILE, once for each parent, got 'one'",
    "one=gone.txt": "no such file",
    "one=empty.txt": "empty",
    "one=binary.bin": "UTF-8",
}


@pytest.mark.parametrize("option", PROMPTS)
def test_bad_prompts_are_one_line(
    family: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(family)
    Path("empty.txt").write_text("\n\n")
    Path("binary.bin").write_bytes(bytes(range(128, 256)))
    Path("x.txt").write_text("w1\n")
    result = CliRunner().invoke(app, ["learn", "space.yaml", "--out", "run", "--prompts", option])
    assert isinstance(result.exception, InputError)
    assert PROMPTS[option] in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_loss_that_turns_nan_keeps_the_last_good_pass(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergesearch.learning import slope

    n = 0
    losses = slope.losses

    def spoiled(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal n
        n += 1
        found = losses(*args, **kwargs)
        return found * torch.nan if n > 10 else found

    monkeypatch.setattr(slope, "losses", spoiled)
    observer, run = RecordingObserver(), family / "run"
    search(learning(family), run, observer=observer, device="cpu")
    assert len(passes(run)) == 2
    assert any(
        line == "learning stops after pass 2 of 3, its last good one: a loss is NaN or infinite in "
        "pass 3, step 3"
        for line in observer.stages
    )
    assert observer.trials[0].error is None
    # two passes of 16 documents, and three steps of four that came to nothing
    assert Record(run, writable=False).n_answers_learning == 3 * (2 * 16 + 3 * 4)
    assert sum(trial.n_documents for trial in observer.trials[:2]) >= 3 * (2 * 16 + 3 * 4)


def test_check_has_a_line_for_learning(family: Path) -> None:
    learning(family)
    result = CliRunner().invoke(app, ["check", str(family / "space.yaml"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("learning")]
    assert "3 passes of 16 documents, 144 answers" in line
    assert "merging, scoring or learning" in result.output


def test_the_curve_is_in_the_record(family: Path) -> None:
    run = family / "run"
    learn(learning(family), run, device="cpu")
    lines = [json.loads(line) for line in (run / "record.jsonl").read_text().splitlines()]
    curve = [line for line in lines if line["kind"] == "pass"]
    assert [point["number"] for point in curve] == [1, 2, 3]
    assert all(point["seconds"] > 0 for point in curve)
    assert {point["label"] for point in curve} == {"task_arithmetic by tensor, learning rate 0.1"}
