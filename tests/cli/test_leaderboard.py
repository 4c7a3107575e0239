"""Leaderboards of runs whose scores are written by hand."""

import csv
import io
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.report.hand_made import Model, make_run, right

MODELS: list[Model] = [
    ("one", "parent", right(60), right(50)),
    ("winner", "winner", right(90), right(80)),
]


def test_runs_whose_folders_share_a_name_are_told_apart(tmp_path: Path, cli: Cli) -> None:
    runs = [make_run(tmp_path / parent / "run", MODELS) for parent in "ab"]
    said = cli("leaderboard", *runs)
    assert said.out.startswith("| run ")
    text = cli("leaderboard", *runs, "--format", "csv").out
    rows = {(row["run"], row["model"]) for row in csv.DictReader(io.StringIO(text))}
    assert rows == {(f"{parent}/run", model) for parent in "ab" for model, *_ in MODELS}


def test_a_run_that_is_named_twice_is_shown_once(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", MODELS)
    once = cli("leaderboard", run)
    assert once.out.startswith("The winner beats the best parent, one, by ")
    monkeypatch.chdir(run)
    assert cli("leaderboard", run, ".", "../run") == once


def test_csv_of_a_run_without_models_is_its_header_in_one_line(tmp_path: Path, cli: Cli) -> None:
    said = cli("leaderboard", make_run(tmp_path / "run", []), "--format", "csv")
    assert said.out == "run,model,method,search,held_out,low,high,recipe\n"
