from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergesearch.space import SearchSpace
from tests.benchmarks import searches
from tests.benchmarks.curves import at, curves, documents_to, goals
from tests.benchmarks.searches import ARMS, COMPARED, REFERENCE, Family, Incumbent, SearchResult


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
    unraced = [run(a, s, stopped=(False, s == 1, s == 2)) for a in COMPARED[1:] for s in range(3)]
    found = {row["goal"]: row for row in goals([*ours, *reference, *unraced])}
    documents = found[f"documents to the score of {REFERENCE} after 100 evaluations"]
    assert documents["by seed"] == [0.2, 0.2, 0.2]
    lead = found[f"held-out of the winner above {REFERENCE}, at equal documents"]
    assert lead["by seed"] == pytest.approx([0.05, 0.06, 0.07])
    stops = next(row for goal, row in found.items() if "racing would have stopped" in goal)
    assert (stops["count"], stops["of all their later bests"]) == ("2 of 6", "4 of 12")
    gap = next(row for goal, row in found.items() if goal.startswith("gap"))
    assert gap["by seed"] == pytest.approx([0.0, -0.01, -0.02])
    assert gap["at most"] == pytest.approx(0.05)


def test_a_reference_that_went_on_is_compared_as_it_was_then() -> None:
    others = [run(arm, n_documents=100, stopped=(False,)) for arm in COMPARED[1:]]
    # the second had one more document than 200, when a best came that was not scored there
    for n_documents, held_out in ((100, (0.4, 0.5, 0.65)), (201, (None, 0.5, None))):
        ours = run("mergesearch", n_documents=n_documents)
        found = {r["goal"]: r for r in goals([ours, run(REFERENCE, held_out=held_out), *others])}
        lead = found[f"held-out of the winner above {REFERENCE}, at equal documents"]
        assert lead["reached"] == pytest.approx(0.65 - 0.5)


@pytest.mark.parametrize("arm", [REFERENCE, "mergesearch", "TPE without racing"])
def test_a_search_of_the_benchmark_counts_its_documents(
    family: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    monkeypatch.setattr(searches, "N_EVALUATIONS", 12)
    made = Family("tiny", SearchSpace.load(family / "space.yaml"), n_evaluations=12)
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
