import json
from pathlib import Path
from typing import Any

import pytest

from mergesearch.errors import InputError
from mergesearch.recipe import ModelRef, Recipe, soup_recipe
from mergesearch.runs import LeaderboardRow, Record, SoupStep, SuiteEntry, TaskEntry, TrialRecord
from mergesearch.scores import DocumentScore, Scores


def recipe(folder: Path, *names: str) -> Recipe:
    for name in names:
        (folder / "models" / name).mkdir(parents=True, exist_ok=True)
    return soup_recipe([ModelRef.model_validate(str(folder / "models" / n)) for n in names])


def task(name: str = "first", n_documents: int = 2, **changes: Any) -> TaskEntry:
    return TaskEntry.from_json(
        {
            "task": name,
            "metric": "acc",
            "filter": "none",
            "higher_is_better": True,
            "weight": 2.0,
            "aggregation": "mean",
            "fingerprint": f"f-{name}",
            "group": None,
            "n_documents": n_documents,
            **changes,
        }
    )


def suite(*search: TaskEntry) -> SuiteEntry:
    return SuiteEntry({"search": search, "held_out": (task("test"),)})


def documents(*values: Any) -> dict[int, DocumentScore]:
    return {i: DocumentScore(value, 0.25) for i, value in enumerate(values)}


def fill(record: Record, folder: Path) -> None:
    record.set_suite(suite(task()))
    record.add_candidate(recipe(folder, "one"), "digest-1")
    record.documents.add("digest-1", "f-first", documents(1.0, 0.0))
    record.add_trial(TrialRecord(0, "linear (one)", recipe(folder, "one").hash, 0.5))
    record.add_trial(TrialRecord(1, "ties", None, None, "NaN «ß»"))
    record.add_row(LeaderboardRow("one", "parent", recipe(folder, "one").hash))
    record.set_soup((SoupStep("one", ("one",), 0.5, True),))


def contents(record: Record) -> tuple[object, ...]:
    return (
        record.suite,
        record.recipe_hashes,
        record.scores("digest-1", "search"),
        record.trials,
        record.rows,
        record.soup,
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_what_was_entered_is_there_when_the_run_is_opened_again(run: Path) -> None:
    first = Record(run)
    fill(first, run.parent)
    again = Record(run)
    one = recipe(run.parent, "one")
    assert contents(again) == contents(first)
    assert again.digest(one) == again.digest_of(one.hash) == "digest-1"
    assert again.recipe(one.hash) == one
    assert again.digest(recipe(run.parent, "two")) is None
    assert [trial.error for trial in again.trials] == [None, "NaN «ß»"]


def test_a_record_cut_anywhere_in_its_last_line_keeps_the_rest_and_goes_on(run: Path) -> None:
    fill(Record(run), run.parent)
    before = contents(Record(run))
    file = run / "record.jsonl"
    start = file.stat().st_size
    Record(run).add_row(LeaderboardRow("two", "parent", "another"))
    whole = file.read_bytes()
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        reader = Record(run, writable=False)
        assert contents(reader) == before
        assert file.read_bytes() == whole[:end]  # a reader changes nothing
        record = Record(run)
        assert contents(record) == before
        record.add_trial(TrialRecord(2, "linear", None, None, "another"))
        assert [trial.number for trial in Record(run).trials] == [0, 1, 2]
        assert len(Record(run).rows) == 1
    file.write_bytes(whole)
    assert [row.label for row in Record(run).rows] == ["one", "two"]


def test_a_line_that_is_no_entry_is_refused_with_its_number(run: Path) -> None:
    fill(Record(run), run.parent)
    file = run / "record.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], lines[1][:20] + "\n", *lines[2:]]))
    with pytest.raises(InputError, match=r"record\.jsonl, line 2: not an entry of a record"):
        Record(run)


def test_a_trial_is_entered_once_and_a_row_takes_the_place_of_its_label(run: Path) -> None:
    record = Record(run)
    fill(record, run.parent)
    size = (run / "record.jsonl").stat().st_size
    fill_again = Record(run)
    fill_again.add_trial(TrialRecord(0, "linear (one)", None, 0.9))
    fill_again.add_row(LeaderboardRow("one", "parent", recipe(run.parent, "one").hash))
    fill_again.set_soup((SoupStep("one", ("one",), 0.5, True),))
    assert (run / "record.jsonl").stat().st_size == size
    fill_again.add_row(LeaderboardRow("one", "parent", "another"))
    assert [row.recipe_hash for row in Record(run).rows] == ["another"]
    assert Record(run).trials[0].score == 0.5


def test_a_run_that_is_moved_with_its_models_finds_them(run: Path, tmp_path: Path) -> None:
    fill(Record(run), run.parent)
    old = recipe(tmp_path, "one").hash
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "models").rename(moved / "models")
    run.rename(moved / "run")
    record = Record(moved / "run")
    assert record.recipe(old) == recipe(moved, "one")
    assert record.digest_of(old) == "digest-1"


def test_scores_are_those_of_the_suites_documents_and_none_where_one_is_missing(run: Path) -> None:
    record = Record(run)
    fill(record, run.parent)
    scores = record.scores("digest-1", "search")
    assert scores is not None
    (score,) = scores.tasks
    assert (score.id.task, score.id.metric, score.id.group) == ("first", "acc", None)
    assert score.weight == 2.0
    assert score.documents == (DocumentScore(1.0, 0.25), DocumentScore(0.0, 0.25))
    assert (score.doc_ids, score.value, score.stderr) == ((0, 1), 0.5, 0.5)
    assert record.scores("digest-1", "held_out") is None
    assert record.scores("digest-1", "search_full") is None  # not a split of this suite
    assert record.scores("digest-2", "search") is None

    record.set_suite(suite(task(n_documents=3), task("second", weight=1.0)))
    assert record.scores("digest-1", "search") is None
    record.documents.add("digest-1", "f-first", {2: DocumentScore(1.0)})
    assert record.scores("digest-1", "search") is None
    record.documents.add("digest-1", "f-second", documents(1.0, 1.0, 0.0))
    for opened in (record, Record(run, writable=False)):
        found = opened.scores("digest-1", "search")
        assert found is not None
        assert [(t.id.task, t.doc_ids) for t in found.tasks] == [
            ("first", (0, 1, 2)),
            ("second", (0, 1)),
        ]
        assert found.total == pytest.approx((2 * 2 / 3 + 1) / 3)


def test_a_value_that_documents_do_not_give_is_kept(run: Path) -> None:
    own = task(aggregation="first.worth")
    record = Record(run)
    record.set_suite(suite(own))
    record.documents.add("digest-1", "f-first", documents([1, "a"], [0, "b"]))
    assert record.scores("digest-1", "search") is None
    found = own.score(record.documents.known("digest-1", "f-first"), 0.75)
    assert found is not None and (found.value, found.stderr) == (0.75, None)
    assert found.values == ([1, "a"], [0, "b"])
    record.add_scores("digest-1", Scores((found,)))
    size = (run / "record.jsonl").stat().st_size
    for again in (record, Record(run)):
        assert again.scores("digest-1", "search") == Scores((found,))
        again.add_scores("digest-1", Scores((found,)))
    assert (run / "record.jsonl").stat().st_size == size


def test_a_mean_is_not_kept_beside_its_documents(run: Path) -> None:
    record = Record(run)
    fill(record, run.parent)
    size = (run / "record.jsonl").stat().st_size
    scores = record.scores("digest-1", "search")
    assert scores is not None
    record.add_scores("digest-1", scores)
    assert (run / "record.jsonl").stat().st_size == size


def test_a_suite_is_entered_once_and_voids_the_leaderboard_of_another(run: Path) -> None:
    fill(Record(run), run.parent)
    size = (run / "record.jsonl").stat().st_size
    record = Record(run)
    record.set_suite(suite(task()))
    assert (run / "record.jsonl").stat().st_size == size
    assert len(record.rows) == 1
    record.set_suite(suite(task(), task("second")))
    for again in (record, Record(run)):
        assert again.suite == suite(task(), task("second"))
        assert again.rows == ()


@pytest.mark.parametrize(
    "other",
    [
        suite(task(n_documents=3)),
        suite(task(weight=1.0)),
        suite(task(fingerprint="g")),
        suite(task(), task("second")),
    ],
)
def test_trials_are_those_of_the_suites_objective(run: Path, other: SuiteEntry) -> None:
    record = Record(run)
    fill(record, run.parent)
    before = record.trials
    assert len(before) == 2
    record.set_suite(other)
    assert record.trials == ()
    record.add_trial(TrialRecord(0, "linear", None, None, "another"))
    for again in (record, Record(run)):
        assert again.trials == (TrialRecord(0, "linear", None, None, "another"),)
    record.set_suite(suite(task()))
    assert record.trials == before


def test_what_is_held_out_is_no_objective_of_a_search() -> None:
    judged = SuiteEntry({"search": (task(),), "held_out": (task("test", n_documents=5),)})
    assert judged.objective == suite(task()).objective
    assert judged != suite(task())


def test_a_full_device_is_the_users_to_solve(run: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    record = Record(run)
    (run / "record.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device; make room") as caught:
        record.add_row(LeaderboardRow("one", "parent", "hash"))
    assert "\n" not in str(caught.value)
    assert record.rows == ()


def test_a_task_is_kept_with_its_id_beside_its_other_facts(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.set_suite(SuiteEntry({"search": (task(group="g"),)}))
    (line,) = (tmp_path / "record.jsonl").read_text().splitlines()
    assert json.loads(line)["splits"]["search"] == [
        {
            "task": "first",
            "metric": "acc",
            "filter": "none",
            "higher_is_better": True,
            "weight": 2.0,
            "aggregation": "mean",
            "fingerprint": "f-first",
            "group": "g",
            "n_documents": 2,
            "benchmark": None,
        }
    ]
