"""What is said of a search for several objectives, and of constraints that were not kept."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mergesearch.cli import leaderboard as terminal
from mergesearch.errors import InputError
from mergesearch.report import entries_of, front_of, leaderboard, verdict
from mergesearch.runs import LeaderboardRow, Record, SuiteEntry
from tests.report.hand_made import Model, make_run, right

MODELS: list[Model] = [
    ("winner", "winner", right(90), right(70)),
    ("front 2", "front", right(85), right(80)),
    ("front 3", "front", right(70), right(75)),
    ("finalist 4", "finalist", right(69), None),
    ("one", "parent", right(60), right(50)),
]
SIZES = {
    "winner": 40_000_000,
    "front 2": 30_000_000,
    "front 3": 20_000_000,
    "finalist 4": 30_000_000,
    "one": 30_000_000,
}
OBJECTIVES = {"objectives": ["score", "size"]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", MODELS, sizes=SIZES, search=OBJECTIVES)


def grouped(run: Path) -> Path:
    """The run, its search task one of a group of that name."""
    record = Record(run)
    rows, splits = record.rows, dict(record.suite.splits)
    splits["search_full"] = tuple(
        replace(t, id=replace(t.id, group="both")) for t in splits["search_full"]
    )
    record.set_suite(SuiteEntry(splits))
    for row in rows:
        record.add_row(row)
    return run


def test_the_front_has_the_winner_first_and_then_the_others_as_they_are_numbered(
    run: Path,
) -> None:
    assert [entry.label for entry in front_of(run)] == ["winner", "front 2", "front 3"]
    assert [entry.label for entry in entries_of(run)][:2] == ["front 2", "front 3"]  # on held-out


def test_a_front_is_read_from_csv_with_each_objective_and_held_out(run: Path) -> None:
    frame = pd.read_csv(io.StringIO(leaderboard(front_of(run), "csv")))
    assert list(frame["model"]) == ["winner", "front 2", "front 3"]
    assert list(frame["search"]) == [0.9, 0.85, 0.7]
    assert list(frame["held_out"]) == [0.7, 0.8, 0.75]
    assert list(frame["parameters"]) == [40_000_000, 30_000_000, 20_000_000]
    assert list(frame["recipe"]) == [entry.recipe.hash[:12] for entry in front_of(run)]


def test_json_has_what_was_optimized_by_its_name(run: Path) -> None:
    (winner, *_) = json.loads(leaderboard(front_of(run), "json"))
    assert winner["objectives"] == {"score": 0.9, "size": 40_000_000}
    assert winner["n_parameters"] == 40_000_000
    assert winner["broken_constraints"] == []


def test_markdown_gives_sizes_in_millions(run: Path) -> None:
    head, _, *rows = leaderboard(front_of(run), "md").splitlines()
    assert "| parameters " in head
    assert [row.split("|")[6].strip() for row in rows] == ["40.0 M", "30.0 M", "20.0 M"]


def test_an_unknown_size_is_an_empty_cell(tmp_path: Path) -> None:
    known = {"winner": 40_000_000, "one": 30_000_000}
    run = make_run(tmp_path / "run", MODELS, sizes=known)
    frame = pd.read_csv(io.StringIO(leaderboard(entries_of(run), "csv")), dtype=str)
    sizes = dict(zip(frame["model"], frame["parameters"], strict=True))
    assert sizes["winner"] == "40000000"
    assert pd.isna(sizes["front 2"])
    assert " nan " not in leaderboard(entries_of(run), "md")


def test_sizes_that_are_all_one_and_no_objective_have_no_column(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MODELS, sizes=dict.fromkeys(SIZES, 1000) | {"one": 1000})
    for form in ("md", "csv"):
        assert "parameters" not in leaderboard(entries_of(run), form)


def test_a_group_that_is_an_objective_has_a_column_and_a_task_not_another(tmp_path: Path) -> None:
    for name in ("both", "dev"):
        search = {"objectives": [name, "score"]}
        run = grouped(make_run(tmp_path / name, MODELS, search=search))
        frame = pd.read_csv(io.StringIO(leaderboard(front_of(run), "csv")))
        assert ("both" in frame) == (name == "both")
        assert list(frame[name if name == "both" else "dev acc"]) == [0.9, 0.85, 0.7]


def test_the_terminal_shows_the_objectives(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def console() -> Console:
        return Console(force_terminal=True, width=90, color_system=None)

    monkeypatch.setattr(terminal, "Console", console)
    terminal.show_front(front_of(run))
    head, *rows = capsys.readouterr().out.splitlines()
    assert "parameters" in head
    assert [row.split()[0] for row in rows] == ["winner", "front", "front"]
    assert "20.0 M" in rows[2]


def test_the_verdict_counts_the_front(run: Path) -> None:
    assert verdict(entries_of(run)).endswith(" 3 models are on the front of score and size.")


@pytest.mark.parametrize(
    "models",
    [
        [m for m in MODELS if m[1] != "front"],
        [("greedy soup", "soup", right(70), right(60)), MODELS[4]],
        [],
    ],
    ids=["ended", "of soups only", "not ended"],
)
@pytest.mark.parametrize("search", [None, {"objectives": ["dev"]}], ids=["score", "a task"])
def test_a_run_of_one_objective_has_no_front_however_far_it_is(
    tmp_path: Path, models: list[Model], search: dict[str, list[str]] | None
) -> None:
    one = make_run(tmp_path / "one", models, search=search)
    name = search["objectives"][0] if search else "score"
    says = f"one has no front: it was searched for one objective, {name}; name several under "
    with pytest.raises(InputError, match=says):
        front_of(one)


@pytest.mark.parametrize(
    "models", [MODELS[4:], [("greedy soup", "soup", right(70), right(60)), MODELS[4]], []]
)
def test_a_run_of_several_objectives_has_no_front_before_its_search_has_ended(
    tmp_path: Path, models: list[Model]
) -> None:
    begun = make_run(tmp_path / "begun", models, search=OBJECTIVES)
    with pytest.raises(InputError, match="begun has no front yet; search its space to the end: "):
        front_of(begun)


def test_the_verdict_begins_with_the_constraints_that_the_winner_breaks(run: Path) -> None:
    assert "constraint" not in verdict(entries_of(run))
    record = Record(run)
    (winner,) = (row for row in record.rows if row.label == "winner")
    record.add_row(replace(winner, broken=("score >= parents by 0.1", "size <= 3e+07 by 1e+07")))
    assert verdict(entries_of(run)).startswith(
        "No finalist keeps every constraint on the whole search split: the winner breaks "
        "score >= parents by 0.1 and size <= 3e+07 by 1e+07. The winner beats the best parent, one,"
    )


def test_a_smaller_front_leaves_nothing_of_a_larger_one(run: Path) -> None:
    record = Record(run)
    kept = [row for row in record.rows if row.label in ("winner", "front 2")]
    record.set_best([*kept, LeaderboardRow("finalist 3", "finalist", kept[0].recipe_hash)])
    for read in (record, Record(run, writable=False)):
        assert [row.label for row in read.rows] == ["winner", "front 2", "finalist 3", "one"]
    before = (run / "record.jsonl").read_bytes()
    record.set_best(record.rows[:3])
    assert (run / "record.jsonl").read_bytes() == before
