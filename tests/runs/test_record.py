from pathlib import Path

import pytest

from mergesearch.errors import InputError
from mergesearch.evaluation import TaskScore
from mergesearch.recipe import ModelRef, Recipe
from mergesearch.runs import Record, Row, SoupStep, TrialEntry
from mergesearch.soups import soup_recipe


def recipe(folder: Path, *names: str) -> Recipe:
    for name in names:
        (folder / "models" / name).mkdir(parents=True, exist_ok=True)
    return soup_recipe([ModelRef.model_validate(str(folder / "models" / n)) for n in names])


def score(fingerprint: str, value: float) -> TaskScore:
    return TaskScore(
        task="first",
        metric="acc",
        filter="none",
        higher_is_better=True,
        weight=2.0,
        aggregation="mean",
        fingerprint=fingerprint,
        doc_ids=(0, 1),
        values=(value, value),
        value=value,
        stderr=None,
    )


def fill(record: Record, folder: Path) -> None:
    record.add_candidate(recipe(folder, "one"), "digest-1")
    record.add_score("digest-1", score("task-1", 0.5))
    record.add_trial(TrialEntry(0, "linear (one)", recipe(folder, "one").hash, 0.5))
    record.add_trial(TrialEntry(1, "ties", None, None, "NaN «ß»"))
    record.add_row(Row("one", "parent", recipe(folder, "one").hash))
    record.set_soup((SoupStep("one", ("one",), 0.5, True),))


def contents(record: Record) -> tuple[object, ...]:
    return (
        record.recipe_hashes,
        record.scores_of("digest-1"),
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
    assert again.score("digest-1", "task-1") == score("task-1", 0.5)
    assert again.score("digest-1", "task-2") is None
    assert again.digest(recipe(run.parent, "two")) is None
    assert [trial.error for trial in again.trials] == [None, "NaN «ß»"]


def test_a_record_cut_anywhere_in_its_last_line_keeps_the_rest_and_goes_on(run: Path) -> None:
    fill(Record(run), run.parent)
    before = contents(Record(run))
    file = run / "record.jsonl"
    start = file.stat().st_size
    Record(run).add_score("digest-1", score("task-2", 0.25))
    whole = file.read_bytes()
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        reader = Record(run, writable=False)
        assert contents(reader) == before
        assert file.read_bytes() == whole[:end]  # a reader changes nothing
        record = Record(run)
        assert contents(record) == before
        record.add_trial(TrialEntry(2, "linear", None, None, "another"))
        assert [trial.number for trial in Record(run).trials] == [0, 1, 2]
        assert Record(run).score("digest-1", "task-2") is None
    file.write_bytes(whole)
    assert Record(run).score("digest-1", "task-2") == score("task-2", 0.25)


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
    fill_again.add_trial(TrialEntry(0, "linear (one)", None, 0.9))
    fill_again.add_row(Row("one", "parent", recipe(run.parent, "one").hash))
    fill_again.set_soup((SoupStep("one", ("one",), 0.5, True),))
    assert (run / "record.jsonl").stat().st_size == size
    fill_again.add_row(Row("one", "parent", "another"))
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


def test_a_full_device_is_the_users_to_solve(run: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    record = Record(run)
    (run / "record.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device; make room") as caught:
        record.add_score("digest-1", score("task-1", 0.5))
    assert "\n" not in str(caught.value)
    assert record.score("digest-1", "task-1") is None
