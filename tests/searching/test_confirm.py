"""The finalists: which of the trials they are, and which of them is the winner."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.api import search
from mergesearch.errors import CandidateError, InputError, MergesearchError
from mergesearch.recipe import Recipe
from mergesearch.report import entries_of
from mergesearch.runs import Record
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.finalists import N_FRONT, best_recipes
from mergesearch.searching.front import spread
from mergesearch.searching.history import History
from tests.searching.watch import RecordingObserver, ended, goals, load

#: An evaluator whose recipes are their own hashes and tensors.
NAMES = cast(
    CandidateEvaluator,
    SimpleNamespace(record=SimpleNamespace(digest_of=lambda key: key, recipe=lambda key: key)),
)


def test_of_a_large_front_the_finalists_lie_apart() -> None:
    # score against size, nearly all of the models among the large ones
    sizes = [10, 40, *range(80, 98)]
    trials = [ended(i, n / 100, n, recipe=f"r{n}") for i, n in enumerate(sizes)]
    dominated = ended(len(sizes), 0.05, 99, recipe="no")
    history = History((*trials, dominated), goals("score", "size"))
    assert len(history.front) == len(sizes)
    found = cast(list[str], best_recipes(history, NAMES, N_FRONT))
    assert len(found) == N_FRONT
    assert found[0] == "r97"  # the best score first
    assert {"r10", "r40", "r80"} < {*found}
    # of a small front all, and then what comes next
    few = History((trials[0], trials[-1], dominated), goals("score", "size"))
    assert best_recipes(few, NAMES, N_FRONT) == ["r97", "r10", "no"]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.integers(1, 12),
)
def test_points_that_are_spread_keep_the_first_and_the_ends(
    points: list[tuple[int, int]], n: int
) -> None:
    chosen = spread(points, n)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(n, len(points))
    assert chosen[0] == 0
    if n > 2 * len(points[0]):  # room for both ends of each objective, and the first
        for k in range(len(points[0])):
            values = [point[k] for point in points]
            assert {min(values), max(values)} <= {points[i][k] for i in chosen}


def test_the_point_in_a_crowd_goes_first() -> None:
    assert spread([(0.0, 9.0), (5.0, 5.0), (5.1, 4.9), (9.0, 0.0)], 3) == [0, 1, 3]
    assert spread([(math.e, 1.0)], 1) == [0]


@pytest.mark.parametrize("n_failing", [1, 2, 100])
def test_a_winner_without_a_held_out_score_is_out_and_the_next_comes_up(
    family: Path, monkeypatch: pytest.MonkeyPatch, n_failing: int
) -> None:
    original = CandidateEvaluator.score
    failed: list[str] = []

    def score(
        self: CandidateEvaluator, recipe: Recipe, split: str = "search", *, full: bool = False
    ) -> Any:
        if split == "held_out" and len(failed) < n_failing:
            failed.append(recipe.hash)
            raise CandidateError("log-likelihoods are not finite")
        return original(self, recipe, split, full=full)

    monkeypatch.setattr(CandidateEvaluator, "score", score)
    space, run, observer = load(family, search={"trials": 4}), family / "run", RecordingObserver()
    if n_failing == 100:
        with pytest.raises(MergesearchError, match="no finalist has a finite score"):
            search(space, run, device="cpu", observer=observer)
        return
    outcome = search(space, run, device="cpu", observer=observer)
    assert outcome.best.recipe.hash not in failed
    record = Record(run, writable=False)
    (winner,) = (row for row in record.rows if row.role == "winner")
    assert winner.recipe_hash == outcome.best.recipe.hash
    assert not {row.recipe_hash for row in record.rows if row.role == "finalist"} & {*failed}
    line = "winner is not on the leaderboard: log-likelihoods are not finite"
    assert observer.stages.count(line) == n_failing
    assert {"base", "one", "two", "uniform soup"} <= {row.label for row in record.rows}


def test_a_finalist_that_has_no_held_out_score_keeps_its_place(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, asked = CandidateEvaluator.score, list[str]()

    def score(
        self: CandidateEvaluator, recipe: Recipe, split: str = "search", *, full: bool = False
    ) -> Any:
        if split == "held_out":
            asked.append(recipe.hash)
            roles = {row.recipe_hash: row.label for row in self.record.rows}
            if roles.get(recipe.hash) == "finalist 3":
                raise CandidateError("log-likelihoods are not finite")
        return original(self, recipe, split, full=full)

    monkeypatch.setattr(CandidateEvaluator, "score", score)
    space, run, observer = load(family, search={"trials": 4}), family / "run", RecordingObserver()
    search(space, run, device="cpu", observer=observer)
    entries = {entry.label: entry for entry in entries_of(run)}
    have = {label for label, entry in entries.items() if entry.held_out is not None}
    assert {*entries} - have == {"finalist 3"}
    assert entries["finalist 3"].search is not None
    line = "finalist 3 has no held-out score: log-likelihoods are not finite"
    assert line in observer.stages
    # when nothing is chosen any more: after the winner and all that it must beat
    others = [entry.recipe.hash for entry in entries.values() if entry.role == "finalist"]
    assert {*asked[-len(others) :]} == {*others}


def test_a_search_whose_page_cannot_be_written_has_its_winner(family: Path) -> None:
    space, run, observer = load(family, search={"trials": 2}), family / "run", RecordingObserver()
    (run / "report.html").mkdir(parents=True)
    with pytest.raises(InputError, match="is not empty and is no run folder"):
        search(space, run, device="cpu", observer=observer)
    (run / "report.html").rmdir()
    search(space, run, device="cpu", observer=observer)
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    outcome = search(space, run, device="cpu", observer=observer)
    assert outcome.best.total > 0
    assert any(line.startswith("no page: cannot write") for line in observer.stages)
