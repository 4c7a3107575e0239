"""What a leaderboard says of a run that was searched on a benchmark's test set."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mergesearch.cli import leaderboard as terminal
from mergesearch.report import entries_of, leaderboard, verdict
from mergesearch.runs import Record, SuiteEntry
from tests.report.hand_made import Model, make_run, right

MODELS: list[Model] = [
    ("one", "parent", right(60), right(50)),
    ("winner", "winner", right(90), right(80)),
    ("finalist 2", "finalist", right(89), None),
]
CAUTION = (
    "earched on the test set of MMLU: the search scores are no estimate of ability, and held-out "
    "numbers on the same benchmark are contaminated."
)


def searched_on(folder: Path, benchmark: str | None, *, held_out: str | None = None) -> Path:
    """A run whose tasks are of benchmarks."""
    make_run(folder, MODELS)
    record = Record(folder)
    rows = record.rows
    of = {"search_full": benchmark, "held_out": held_out}
    splits = {
        split: tuple(replace(task, benchmark=of[split]) for task in tasks)
        for split, tasks in record.suite.splits.items()
    }
    record.set_suite(SuiteEntry(splits))
    for row in rows:
        record.add_row(row)
    return folder


def columns(runs: list[Path], form: str) -> list[str]:
    text = leaderboard([entry for run in runs for entry in entries_of(run)], form)
    if form == "csv":
        return next(csv.reader(io.StringIO(text)))
    return [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]


def test_the_verdict_begins_with_it(tmp_path: Path) -> None:
    run = searched_on(tmp_path / "run", "MMLU")
    assert verdict(entries_of(run)).startswith(f"S{CAUTION} The winner beats the best parent, one")


def test_a_run_without_a_winner_says_it_too(tmp_path: Path) -> None:
    entries = [e for e in entries_of(searched_on(tmp_path / "run", "MMLU")) if e.label != "winner"]
    assert verdict(entries).startswith(f"S{CAUTION} Nothing to compare yet")


def test_numbers_of_the_search_are_marked_and_those_of_another_benchmark_are_not(
    tmp_path: Path,
) -> None:
    run = searched_on(tmp_path / "run", "MMLU", held_out="ARC")
    lead = ["model", "method", "search*", "held-out", "95 % interval*"]  # of the finalist
    assert columns([run], "md") == [*lead, "dev acc*", "test acc", "recipe"]
    totals = ["search*", "held_out", "low*", "high*"]
    assert columns([run], "csv")[3:] == [*totals, "dev acc*", "test acc", "recipe"]
    (winner, *_) = json.loads(leaderboard(entries_of(run), "json"))
    assert winner["search"]["tasks"]["dev"]["searched_on_benchmark"] == "MMLU"
    assert winner["held_out"]["tasks"]["test"]["searched_on_benchmark"] is None


def test_held_out_numbers_on_the_same_benchmark_are_marked(tmp_path: Path) -> None:
    run = searched_on(tmp_path / "run", "MMLU", held_out="MMLU")
    marked = ["search*", "held-out*", "95 % interval*", "dev acc*", "test acc*"]
    assert columns([run], "md")[2:-1] == marked
    (winner, *_) = json.loads(leaderboard(entries_of(run), "json"))
    assert winner["held_out"]["tasks"]["test"]["searched_on_benchmark"] == "MMLU"


@pytest.mark.parametrize("held_out", [None, "MMLU"])
def test_a_benchmark_that_is_held_out_alone_is_marked_nowhere(
    tmp_path: Path, held_out: str | None
) -> None:
    run = searched_on(tmp_path / "run", None, held_out=held_out)
    for form in ("md", "csv"):
        assert "*" not in "".join(columns([run], form))
    assert "benchmark" not in verdict(entries_of(run)) + leaderboard(entries_of(run), "md")


def test_a_record_of_before_benchmarks_were_known_has_none(tmp_path: Path) -> None:
    run = searched_on(tmp_path / "run", None)
    (record,) = run.glob("record.jsonl")
    text = record.read_text()
    record.write_text(text.replace(', "benchmark": null', ""))
    assert record.read_text() != text
    assert [entry.spoiled for entry in entries_of(run)] == [{}] * len(MODELS)


def test_what_the_mark_means_stands_below_the_table_and_names_the_run(tmp_path: Path) -> None:
    run, clean = searched_on(tmp_path / "run", "MMLU"), searched_on(tmp_path / "clean", None)
    assert leaderboard(entries_of(run), "md").endswith(f"\n\n`*` S{CAUTION}")
    both = [entry for folder in (run, clean) for entry in entries_of(folder)]
    assert leaderboard(both, "md").endswith(f"\n\n`*` Run run was s{CAUTION}")
    assert {"dev acc", "dev acc*", "test acc"} <= set(columns([run, clean], "md"))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_terminal_says_it_before_the_table_and_beside_the_numbers(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
) -> None:
    def console() -> Console:
        return Console(force_terminal=is_terminal, width=400, color_system=None)

    monkeypatch.setattr(terminal, "Console", console)
    run, clean = searched_on(tmp_path / "run", "MMLU"), searched_on(tmp_path / "clean", None)
    for found, opening in (
        (entries_of(run), f"S{CAUTION} The winner beats"),
        ([*entries_of(run), *entries_of(clean)], f"Run run was s{CAUTION}\n"),
    ):
        terminal.show_entries(found)
        text = capsys.readouterr().out
        assert text.startswith(opening)
        assert "search*" in text and "held-out " in text and "95 % interval*" in text
