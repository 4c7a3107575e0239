import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergesearch.space import SearchSpace
from tests.benchmarks import searches
from tests.benchmarks.curves import at, curves, documents_to, goals, paired
from tests.benchmarks.search import _known, _searches, _winners
from tests.benchmarks.searches import ARMS, REFERENCE, UNRACED, Family, Incumbent, SearchResult


def run(arm: str, seed: int = 0, **changes: Any) -> SearchResult:
    """A search of ten documents an evaluation, whose best is found in three steps."""
    incumbents = tuple(Incumbent(n, score, "r") for n, score in ((10, 0.5), (50, 0.6), (200, 0.7)))
    made = SearchResult(
        family="demo",
        arm=arm,
        seed=seed,
        n_each=10,
        n_documents=1000,
        n_trials=100,
        incumbents=incumbents,
        held_out=(0.4, 0.5, 0.65),
        winner_score=0.7,
        winner_held_out=0.65,
    )
    return replace(made, **changes)


def test_a_curve_is_what_was_the_best_after_so_many_documents() -> None:
    one = run(REFERENCE)
    assert [at(one, n) for n in (10, 49, 50, 199.9, 10**6)] == [
        *((0.5, 0.4), (0.5, 0.4), (0.6, 0.5), (0.6, 0.5), (0.7, 0.65))
    ]
    assert np.isnan(at(one, 9)).all()
    assert documents_to(one, 0.55) == 50
    assert documents_to(one, 0.71) == float("inf")
    frame = curves([one, run(REFERENCE, 1, incumbents=one.incumbents[:1], held_out=(0.4,))])
    (mid,) = frame[(frame["evaluations"] == 30) & (frame["split"] == "search")]["median"]
    assert mid == pytest.approx((0.7 + 0.5) / 2)


def test_goals_compare_seed_by_seed() -> None:
    ours = [run("mergesearch", s, winner_held_out=0.7 + s / 100) for s in range(3)]
    reference = [run(REFERENCE, s) for s in range(3)]
    unraced = [run(a, s, stopped=(False, s == 1, s == 2)) for a in UNRACED for s in range(3)]
    found = {row["goal"]: row for row in goals([*ours, *reference, *unraced])}
    documents = found[f"documents to the score of {REFERENCE} after 100 evaluations"]
    assert documents["by seed"] == [0.2, 0.2, 0.2]
    lead = found[f"held-out of the winner above {REFERENCE}, the least of all seeds"]
    assert lead["by seed"] == pytest.approx([0.05, 0.06, 0.07])
    assert lead["reached"] == pytest.approx(0.05)
    stops = next(row for goal, row in found.items() if "racing would have stopped" in goal)
    assert stops["by seed"] == [0, 0, 1, 0, 0, 1]
    gap = found["search score less held-out of the winner, mergesearch"]
    assert gap["by seed"] == pytest.approx([0.0, -0.01, -0.02])


def test_the_test_beds_goals_are_means_over_seeds() -> None:
    runs = [
        run(arm, s, family="testbed", winner_held_out=0.88 + s / 100)
        for arm in ("mergesearch", "without labels")
        for s in range(3)
    ]
    found = {row["goal"]: row for row in goals(runs)}
    assert found["held-out of the winner, mergesearch"]["reached"] == pytest.approx(0.89)
    assert found["held-out of the winner, without labels"]["at least"] == 0.86


def test_goals_ask_only_what_was_run() -> None:
    found = {row["goal"] for row in goals([run("without labels"), run(REFERENCE, 1)])}
    assert found == {"search score less held-out of the winner, without labels"}


def test_the_winners_stand_by_seed_and_what_was_not_run_is_a_dash() -> None:
    table = _winners([run("random", 4), run("mergesearch", 3), run("mergesearch", 4)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[2][1:] == ["3", "4"]
    assert rows[4:] == [["mergesearch", "0.650", "0.650"], ["random", "-", "0.650"]]


def test_only_finished_searches_are_reported(family: Path, tmp_path: Path) -> None:
    (tmp_path / "testbed-random-4.json").write_text(json.dumps(run("random", 4).as_json()))
    before = tmp_path / "search.json"
    before.write_text(json.dumps({"runs": [run(REFERENCE, 4, family="testbed").as_json()]}))
    found = _searches(
        ("testbed", 4),
        work=tmp_path,
        testbed=family,
        arms=[REFERENCE, "mergesearch", "random"],
        known=_known(before),
        finished=True,
    )
    assert [(one.arm, one.seed) for one in found] == [(REFERENCE, 4), ("random", 4)]


def test_a_lead_has_an_interval_over_the_documents_that_both_answered() -> None:
    ours = run("mergesearch", winner_documents=((1.0, 1.0, 0.0, 1.0), (1.0, 0.0)))
    theirs = run("random", winner_documents=((1.0, 0.0, 0.0, 1.0), (0.0, 0.0)))
    interval = paired(ours, theirs)
    assert interval is not None
    assert sum(interval) / 2 == pytest.approx((0.25 + 0.5) / 2)
    error = ((0.25 / 4) + (0.5 / 2)) ** 0.5 / 2  # of the mean of two tasks' means
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * error)
    assert paired(ours, run("random", winner_documents=((1.0,), (0.0,)))) is None
    assert paired(ours, run("random")) is None


def test_a_reference_that_went_on_is_compared_as_it_was_then() -> None:
    # the second had one more document than 200, when a best came that was not scored there
    for n_documents, held_out in ((100, (0.4, 0.5, 0.65)), (201, (None, 0.5, None))):
        answers = ((1.0, 0.0), (1.0, 1.0))
        ours = run("mergesearch", n_documents=n_documents, winner_documents=answers)
        theirs = run(REFERENCE, held_out=held_out, winner_documents=answers)
        found = {r["goal"]: r for r in goals([ours, theirs])}
        lead = found[f"held-out of the winner above {REFERENCE}, the least of all seeds"]
        assert lead["reached"] == pytest.approx(0.65 - 0.5)
        assert lead["intervals"] == [None]  # of its last winner there would be one


@pytest.mark.parametrize("arm", [REFERENCE, "mergesearch", "TPE without racing"])
def test_a_search_of_the_benchmark_counts_its_documents(
    family: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    monkeypatch.setattr(searches, "N_EVALUATIONS", 12)
    space = SearchSpace.load(family / "space.yaml")
    learned = {"labels": {"documents": 2, "passes": 2}}
    made = Family("tiny", space, n_evaluations=12, learned=learned)
    if arm == REFERENCE:
        found = searches.run_reference(made, 0, family / "run", curve=True)
    else:
        found = searches.run_arm(made, arm, 0, family / "run", curve=True)
    assert found.n_each == 20
    if arm == "mergesearch":
        assert found.n_documents <= 12 * 20 + 20  # the last candidate may overshoot
    else:
        assert (found.n_documents, found.n_trials) == (12 * 20, 12)
    for before, after in pairwise(found.incumbents):
        assert before.score < after.score and before.n_documents < after.n_documents
    assert len(found.held_out) == len(found.incumbents)
    assert (found.stopped is None) == (arm != "TPE without racing")
    assert SearchResult.from_json(found.as_json()) == found


def test_every_arm_is_a_setting_of_the_engine(family: Path) -> None:
    made = Family("tiny", SearchSpace.load(family / "space.yaml"), n_evaluations=12)
    for settings in ARMS.values():
        made.space_for(settings)
