"""What runs are called where several are shown."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mergesearch.cli import leaderboard as terminal
from mergesearch.report import Entry, entries_of, leaderboard, run_labels
from tests.report.hand_made import Model, make_run, right

MODELS: list[Model] = [("one", "parent", right(60), right(50))]


def entries(*runs: Path) -> list[Entry]:
    """The entries of runs, each made with one model."""
    return [entry for run in runs for entry in entries_of(make_run(run, MODELS))]


def by_markdown(found: list[Entry]) -> list[str]:
    head, _, *rows = leaderboard(found, "md").splitlines()
    assert head.startswith("| run ")
    return [row.split("|")[1].strip() for row in rows]


def by_csv(found: list[Entry]) -> list[str]:
    return [row["run"] for row in csv.DictReader(io.StringIO(leaderboard(found, "csv")))]


def by_json(found: list[Entry]) -> list[str]:
    return [row["run"] for row in json.loads(leaderboard(found, "json"))]


def by_terminal(found: list[Entry]) -> list[str]:
    console = Console(width=200)
    with console.capture() as drawn:
        console.print(terminal._table(found, tasks=True))
    head, *rows = drawn.get().splitlines()
    assert head.split()[0] == "run"
    return [row.split()[0] for row in rows]


@pytest.mark.parametrize("shown", [by_markdown, by_csv, by_json, by_terminal])
@pytest.mark.parametrize(
    ("runs", "labels"),
    [
        (["first", "second"], ["first", "second"]),
        (["a/run", "b/run"], ["a/run", "b/run"]),
        (["a/run", "b/run", "b/other"], ["a/run", "b/run", "other"]),
        (["x/a/run", "y/a/run", "b/run"], ["x/a/run", "y/a/run", "b/run"]),
        (["x/a/run", "y/a/run", "x/run"], ["x/a/run", "y/a/run", "x/run"]),
        (["x[/b]", "[b]"], ["b]", "[b]"]),  # which a terminal's markup would make styles of
    ],
)
def test_rows_are_told_apart_by_the_shortest_end_of_the_path_that_one_run_alone_has(
    tmp_path: Path,
    runs: list[str],
    labels: list[str],
    shown: Callable[[list[Entry]], list[str]],
) -> None:
    assert shown(entries(*(tmp_path / run for run in runs))) == labels


def test_a_path_that_ends_another_is_shown_whole(tmp_path: Path) -> None:
    (entry,) = entries(tmp_path / "run")
    found = [replace(entry, run=Path(path)) for path in ("/a/run", "/x/a/run")]
    assert list(run_labels(found).values()) == ["/a/run", "x/a/run"]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_the_folder_that_one_is_in_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(make_run(tmp_path / "here", MODELS))
    shown = {"csv": by_csv, "json": by_json}[form]
    assert shown(entries_of(Path("."))) == ["here"]


def test_a_run_by_two_paths_is_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    found = [*entries(tmp_path / "run"), *entries_of(tmp_path / "link")]
    assert run_labels(found) == {(tmp_path / "run").resolve(): "run"}
    assert "| run " not in leaderboard(found, "md")


def test_what_a_leaderboard_warns_of_names_runs_as_its_rows_do(tmp_path: Path) -> None:
    found = [
        replace(e, spoiled={"dev": "MMLU"}) for e in entries(tmp_path / "a/x", tmp_path / "b/x")
    ]
    text = leaderboard(found, "md")
    assert "Run a/x was searched on the test set of MMLU" in text
    assert "Run b/x was searched on the test set of MMLU" in text
