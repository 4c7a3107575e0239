import csv as csv_module
import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mergesearch.errors import InputError
from mergesearch.recipe import read_recipe
from mergesearch.report import REPORTS, entries_of, leaderboard, markdown, ranked, table, verdict
from mergesearch.runs import Record, SuiteEntry
from mergesearch.scores import Scores, interval
from tests.report import hand_made
from tests.report.hand_made import Model, make_run, right

MODELS: list[Model] = [
    ("base", "base", right(20), right(10)),
    ("one", "parent", right(60), right(50)),
    ("two", "parent", right(50), right(55)),
    ("uniform soup", "reference", right(65), right(60)),
    ("winner", "winner", right(90), right(80)),
    ("finalist 2", "finalist", right(89), None),
]


#: As a search leaves them, whose other finalists are scored on held-out, too.
SCORED: list[Model] = [*MODELS[:-1], ("finalist 2", "finalist", right(89), right(95))]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "first", MODELS)


def test_models_are_ranked_by_what_the_search_did_not_see_and_the_unseen_come_last(
    run: Path,
) -> None:
    labels = [entry.label for entry in entries_of(run)]
    assert labels == ["winner", "uniform soup", "two", "one", "base", "finalist 2"]


def test_no_finalist_is_ranked_before_the_winner_by_what_it_was_not_chosen_by(
    tmp_path: Path,
) -> None:
    entries = entries_of(make_run(tmp_path / "run", SCORED))
    labels = [entry.label for entry in entries]
    assert labels == ["winner", "uniform soup", "two", "one", "base", "finalist 2"]
    row = table(entries).set_index("model").loc["finalist 2"]
    assert row["held_out"] == 0.95
    assert 0.89 < row["low"] < 0.95 < row["high"]
    assert verdict(entries).startswith("The winner beats the best parent, two, by +0.250")


def test_runs_of_other_documents_are_said_not_to_compare(tmp_path: Path) -> None:
    long, short = tmp_path / "long", tmp_path / "short"
    make_run(long, SCORED)
    make_run(short, [("winner", "winner", right(90), right(80)[:50])])
    both = [*entries_of(long), *entries_of(short)]
    line = "The runs long, short have scores of unlike tasks, weights or documents: their totals"
    assert line in leaderboard(both, "md")
    make_run(tmp_path / "again", SCORED)
    same = [*entries_of(long), *entries_of(tmp_path / "again")]
    assert "do not compare" not in leaderboard(same, "md")


def test_without_held_out_all_are_ranked_by_the_search_split(tmp_path: Path) -> None:
    models: list[Model] = [(label, role, search, None) for label, role, search, _ in MODELS]
    labels = [entry.label for entry in entries_of(make_run(tmp_path / "run", models))]
    assert labels == ["winner", "finalist 2", "uniform soup", "one", "two", "base"]


def test_a_model_without_any_score_is_last_also_where_lower_is_better(tmp_path: Path) -> None:
    models: list[Model] = [
        ("winner", "winner", [5.0, 6.0], None),
        ("one", "parent", [7.0, 8.0], None),
        ("two", "parent", None, None),
    ]
    run = make_run(tmp_path / "run", models, higher_is_better=False)
    assert [entry.label for entry in entries_of(run)] == ["winner", "one", "two"]
    assert entries_of(run)[0].search.total == -5.5  # type: ignore[union-attr]


def test_the_verdict_names_the_best_parent_and_the_uniform_soup(run: Path) -> None:
    assert verdict(entries_of(run)) == (
        "The winner beats the best parent, two, by +0.250 [+0.170, +0.340] on held-out. "
        "The winner beats the uniform soup by +0.200 [+0.120, +0.280] on held-out."
    )


@pytest.mark.parametrize(
    ("n_right", "says"),
    [
        (90, "The winner beats the best parent, two, by +0.350 ["),
        (56, "The winner does NOT beat the best parent, two, beyond noise: +0.010 ["),
        (
            55,
            "The winner does NOT beat the best parent, two, beyond noise: +0.000 [+0.000, +0.000]",
        ),
        (54, "The winner does NOT beat the best parent, two, beyond noise: -0.010 ["),
        (20, "The winner is WORSE than the best parent, two: -0.350 ["),
    ],
)
def test_the_verdict_opens_with_whether_the_best_parent_is_beaten(
    tmp_path: Path, n_right: int, says: str
) -> None:
    models = [m for m in MODELS if m[0] != "winner"]
    run = make_run(tmp_path / "run", [*models, ("winner", "winner", right(90), right(n_right))])
    assert verdict(entries_of(run)).startswith(says)


def test_the_verdict_says_where_the_base_is_the_best_of_the_inputs(tmp_path: Path) -> None:
    models: list[Model] = [
        ("base", "base", right(70), right(70)),
        ("one", "parent", right(60), right(50)),
        ("winner", "winner", right(90), right(40)),
    ]
    text = verdict(entries_of(make_run(tmp_path / "run", models)))
    assert text.startswith("The winner is WORSE than the base: -0.300 [")


def test_the_verdict_is_on_the_search_split_where_nothing_is_held_out(tmp_path: Path) -> None:
    models: list[Model] = [(label, role, dev, None) for label, role, dev, _ in MODELS]
    text = verdict(entries_of(make_run(tmp_path / "run", models)))
    assert "beats the best parent, one, by +0.300" in text
    assert text.count("on the search split") == 2


def test_a_lower_score_beats_a_higher_one_where_the_task_says_so(tmp_path: Path) -> None:
    models: list[Model] = [
        ("one", "parent", [5.0] * 20, [5.0] * 20),
        ("winner", "winner", [3.0] * 20, [3.0] * 20),
    ]
    run = make_run(tmp_path / "run", models, higher_is_better=False)
    assert verdict(entries_of(run)).startswith("The winner beats the best parent, one, by +2.000")


def test_a_run_of_soups_is_judged_by_its_soup(tmp_path: Path) -> None:
    models = [m for m in MODELS if m[1] not in ("winner", "finalist")]
    run = make_run(tmp_path / "run", [*models, ("greedy soup", "soup", right(70), right(75))])
    assert verdict(entries_of(run)).startswith("The greedy soup beats the best parent, two, by")
    uniform: list[Model] = [("uniform soup", "soup", right(70), right(75)), *MODELS[:3]]
    text = verdict(entries_of(make_run(tmp_path / "uniform", uniform)))
    assert text.startswith("The uniform soup beats the best parent, two, by")
    assert text.count("The uniform soup") == 1


def test_an_unfinished_run_has_no_verdict(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MODELS[:3])
    assert verdict(entries_of(run)) == "Nothing to compare yet: the run has no judged winner."
    assert markdown(entries_of(make_run(tmp_path / "empty", []))) == "No models yet."


def test_a_table_has_a_row_a_model_with_its_interval(run: Path) -> None:
    frame = table(entries_of(run)).set_index("model")
    row = frame.loc["winner"]
    bounds = interval(entries_of(run)[0].held_out)  # type: ignore[arg-type]
    assert (row["search"], row["held_out"]) == (0.9, 0.8)
    assert (row["low"], row["high"]) == (bounds.low, bounds.high)
    assert 0.7 < bounds.low < 0.8 < bounds.high < 0.9
    assert (row["dev acc"], row["test acc"]) == (0.9, 0.8)
    finalist = frame.loc["finalist 2"]
    assert pd.isna(finalist["held_out"])
    assert finalist["low"] < 0.89 < finalist["high"]


def test_markdown_shows_the_winner_in_bold_and_intervals(run: Path) -> None:
    lines = leaderboard(entries_of(run), "md").splitlines()
    header, _, first, *rest = [[cell.strip() for cell in x.strip("|").split("|")] for x in lines]
    assert header[:5] == ["model", "method", "search", "held-out", "95 % interval"]
    assert first[:4] == ["**winner**", "linear", "0.900", "0.800"]
    assert first[4].startswith("[0.7") and first[4].endswith("]")
    assert len(rest) == 5
    assert not any("nan" in line for line in lines)


def test_several_runs_are_one_leaderboard(run: Path, tmp_path: Path) -> None:
    better: list[Model] = [
        ("one", "parent", right(60), right(50)),
        ("winner", "winner", right(95), right(90)),
    ]
    second = make_run(tmp_path / "second", better)
    entries = ranked([*entries_of(run), *entries_of(second)])
    assert [(e.run.name, e.label) for e in entries][:3] == [
        ("second", "winner"),
        ("first", "winner"),
        ("first", "uniform soup"),
    ]
    assert "| run " in leaderboard(entries, "md").splitlines()[0]
    frame = pd.read_csv(io.StringIO(leaderboard(entries, "csv")))
    assert list(frame["run"].unique()) == ["second", "first"]
    assert len(frame) == len(MODELS) + 2


def test_csv_is_read_back_in_full_precision(run: Path) -> None:
    text = leaderboard(entries_of(run), "csv")
    frame = pd.read_csv(io.StringIO(text))
    expected = table(entries_of(run))
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
    assert len(list(csv_module.reader(io.StringIO(text)))) == len(MODELS) + 1


def test_a_run_without_models_has_a_header_alone(tmp_path: Path) -> None:
    fixed = ["run", "model", "method", "search", "held_out", "low", "high", "recipe"]
    empty = entries_of(make_run(tmp_path / "empty", []))
    assert leaderboard(empty, "csv") == ",".join(fixed) + "\n"
    full = table(entries_of(make_run(tmp_path / "full", MODELS)))
    assert [name for name in full.columns if name in fixed] == fixed


def test_json_holds_scores_intervals_and_a_recipe_that_can_be_run(run: Path) -> None:
    rows = json.loads(leaderboard(entries_of(run), "json"))
    winner, finalist = rows[0], rows[-1]
    assert (winner["model"], winner["role"], winner["run"]) == ("winner", "winner", "first")
    assert winner["tensors_xxh3"] == "digest of winner"
    assert winner["held_out"]["total"] == 0.8
    assert winner["held_out"]["tasks"]["test"]["n_documents"] == 100
    low, high = winner["interval_95"]
    assert low < 0.8 < high
    assert finalist["held_out"] is None and finalist["search"]["total"] == 0.89
    for row, entry in zip(rows, entries_of(run), strict=True):
        recipe = read_recipe(row["recipe"]).resolved(run)
        assert recipe == entry.recipe
        assert recipe.hash == row["recipe_hash"]


def test_a_split_of_which_a_task_is_missing_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [("one", "parent", right(60), None), MODELS[0]])
    entry = next(e for e in entries_of(run) if e.label == "one")
    assert entry.search is not None and entry.held_out is None
    assert entry.deciding == entry.search


def test_a_task_of_two_splits_has_the_weight_and_the_documents_of_each(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [("one", "parent", right(60), right(20))])
    record = Record(run)
    dev = hand_made.task("dev", 80)
    again = replace(dev, id=replace(dev.id, task="again"), weight=3.0)
    splits = {**record.suite.splits, "held_out": (again, hand_made.task("test", 100))}
    (row,) = record.rows
    record.set_suite(SuiteEntry(splits))
    record.add_row(row)
    (entry,) = entries_of(run)
    assert entry.search is not None and entry.held_out is not None
    assert entry.search.total == 0.6
    assert entry.held_out.total == pytest.approx((3 * 60 / 80 + 0.2) / 4)
    assert [task.id.task for task in entry.held_out.tasks] == ["again", "test"]


def test_an_aggregation_that_is_out_of_reach_leaves_the_value_and_no_interval(
    tmp_path: Path,
) -> None:
    models: list[Model] = [
        ("one", "parent", right(60), None),
        ("winner", "winner", right(90), None),
    ]
    run = make_run(tmp_path / "run", models)
    record = Record(run)
    rows = record.rows
    dev = hand_made.task("dev", 100)
    own = replace(dev, id=replace(dev.id, aggregation="dev.worth"))
    record.set_suite(SuiteEntry({"search_full": (own,)}))
    for row, value in zip(rows, (0.25, 0.75), strict=True):
        digest = f"digest of {row.label}"
        score = own.score(record.documents.known(digest, own.id.fingerprint), value)
        assert score is not None
        record.add_scores(digest, Scores((score,)))
        record.add_row(row)
    entries = entries_of(run)
    assert [(entry.label, entry.deciding.total) for entry in entries if entry.deciding] == [
        ("winner", 0.75),
        ("one", 0.25),
    ]
    assert [entry.interval for entry in entries] == [None, None]
    assert verdict(entries).startswith(
        "The winner is +0.500 from the best parent, one on the search split, beyond noise or not: "
        "the aggregation 'dev.worth' is a task's own function"
    )
    first = markdown(entries).splitlines()[2]
    assert [cell.strip() for cell in first.split("|")][1:6] == [
        "**winner**",
        "linear",
        "0.750",
        "",
        "",
    ]


def test_an_unknown_format_is_named_with_those_there_are(run: Path) -> None:
    says = r"^unknown format 'mdd'; did you mean 'md'\? available: md, csv, json$"
    with pytest.raises(InputError, match=says):
        leaderboard(entries_of(run), "mdd")


def test_a_format_is_a_row_of_the_table(run: Path) -> None:
    entries = entries_of(run)
    assert list(REPORTS) == ["md", "csv", "json"]
    for name in REPORTS:
        assert leaderboard(entries, name) == REPORTS[name].write(entries)
    assert leaderboard(entries) == markdown(entries)


def test_only_runs_have_entries(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        entries_of(tmp_path)
