from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mergesearch.recipe import Recipe
from mergesearch.runs import TrialRecord
from mergesearch.runs.told import REFINES
from mergesearch.searching.history import History
from mergesearch.searching.policies import refining as refine
from mergesearch.searching.policies.refining import neighbour
from mergesearch.searching.study import finished
from tests.searching.watch import (
    Killed,
    RecordingObserver,
    ended,
    goals,
    hash_evaluator,
    load,
    run,
    tried,
)

DOMAINS: dict[str, BaseDistribution] = {
    "method": CategoricalDistribution(("linear", "ties")),
    "weight": FloatDistribution(-1, 3),
    "density": FloatDistribution(0, 1),
    "depth": IntDistribution(2, 6),
    "first": IntDistribution(0, 1),
    "fixed": FloatDistribution(2, 2),
}
POINT = {"method": "ties", "weight": 1.0, "density": 1.0, "depth": 6, "first": 0, "fixed": 2.0}


def history(*trials: TrialRecord) -> History:
    return History(trials, goals("score"))


def best(params: Mapping[str, Any] = POINT, domains: Mapping[str, Any] = DOMAINS) -> TrialRecord:
    return ended(0, 0.9, params=params, domains=domains)


def steps(*trials: TrialRecord, n: int = 50) -> list[dict[str, Any]]:
    """The neighbours that so many seeds give."""
    found = [neighbour(history(*trials), seed) for seed in range(n)]
    return [params for params in found if params is not None]


@settings(max_examples=60, deadline=None)
@given(
    weight=st.floats(-1, 3),
    density=st.floats(0, 1),
    depth=st.integers(2, 6),
    first=st.integers(0, 1),
    seed=st.integers(0, 2**31),
)
def test_a_step_stays_in_the_space_and_changes_no_choice(
    weight: float, density: float, depth: int, first: int, seed: int
) -> None:
    here = {**POINT, "weight": weight, "density": density, "depth": depth, "first": first}
    there = neighbour(history(best(here)), seed)
    assert there is not None
    assert there.keys() == here.keys()
    for name, domain in DOMAINS.items():
        assert domain._contains(domain.to_internal_repr(there[name]))
        assert type(there[name]) is type(here[name])
    assert (there["method"], there["fixed"]) == ("ties", 2.0)
    assert there != here


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_a_whole_number_that_takes_a_step_moves_also_at_the_ends_of_its_range(depth: int) -> None:
    only = {"depth": IntDistribution(2, 6)}
    moved = {params["depth"] for params in steps(best({"depth": depth}, only))}
    assert depth not in moved
    assert moved >= {depth - 1, depth + 1} & {2, 3, 4, 5, 6}


def test_a_step_is_decided_by_the_seed_and_by_how_many_trials_have_ended() -> None:
    one, more = [best()], [best(), ended(1, 0.1)]
    assert steps(*one) == steps(*one)
    assert len({str(params) for params in steps(*one)}) == 50
    assert not any(a == b for a, b in zip(steps(*one), steps(*more), strict=True))


def test_a_step_starts_from_the_best_that_was_scored_on_all_documents() -> None:
    only = {"weight": FloatDistribution(-100, 100)}
    trials = [
        ended(0, 0.5, params={"weight": -90.0}, domains=only),
        ended(1, 0.8, params={"weight": 0.0}, domains=only),
        ended(2, 0.9, share=0.5, params={"weight": 90.0}, domains=only),
    ]
    found = [params["weight"] for params in steps(*trials, n=200)]
    assert abs(np.mean(found)) < 3 * 20 / 200**0.5  # a tenth of the range


def test_of_a_front_every_candidate_is_refined() -> None:
    only = {"weight": FloatDistribution(-100, 100)}
    trials = [
        ended(i, 0.5 + i / 10, 100 + i, params={"weight": where}, domains=only)
        for i, where in enumerate([-80.0, 80.0])
    ]
    found = [neighbour(History(tuple(trials), goals("score", "size")), seed) for seed in range(30)]
    assert {np.sign(params["weight"]) for params in found if params} == {-1, 1}


def test_a_step_shrinks_with_each_that_did_not_help_and_grows_again_when_one_did() -> None:
    only: dict[str, BaseDistribution] = {"weight": FloatDistribution(-1, 1)}
    here = {"weight": 0.0}

    def size(*trials: TrialRecord) -> float:
        return float(np.std([params["weight"] for params in steps(*trials, n=200)]))

    failures = [ended(i, 0.1, refines=True) for i in range(1, 60)]
    others = [ended(i, 0.1) for i in range(1, 60)]
    numbers = (0, 3, 10, 59)
    sizes = [size(best(here, only), *failures[:n]) for n in numbers]
    expected = [2 * max(refine._LEAST_STEP, refine._STEP * refine._SHRINK**n) for n in numbers]
    assert sizes == pytest.approx(expected, rel=0.2)
    assert size(best(here, only), *others) == pytest.approx(expected[0], rel=0.2)
    success = ended(60, 0.95, refines=True, params=here, domains=only)
    assert size(best(here, only), *failures, success) == pytest.approx(expected[0], rel=0.2)


def test_what_has_no_number_has_no_neighbour() -> None:
    only = {"method": DOMAINS["method"], "fixed": DOMAINS["fixed"]}
    assert neighbour(history(best({"method": "ties", "fixed": 2.0}, only)), 0) is None


def refined(family: Path, name: str, **settings: Any) -> list[bool]:
    """Of each trial of a search whether it was a step of the refinement."""
    (family / name).mkdir()
    methods: dict[str, Any] = {"task_arithmetic": {}}  # in which no two points are one recipe
    space = load(family, methods=methods, search={"sampler": "random", **settings})
    return [REFINES in t.user_attrs for t in finished(run(space, hash_evaluator(family / name)))]


def test_only_the_last_share_of_the_budget_is_refinement(family: Path) -> None:
    assert refined(family, "a", trials=20, refine=0.25) == [False] * 15 + [True] * 5
    assert refined(family, "b", trials=20, refine=0) == [False] * 20
    # a document is a trial, for this evaluator
    assert refined(family, "c", documents=16, refine=0.5) == [False] * 8 + [True] * 8
    # starting points come first, whatever is spent
    assert refined(family, "d", trials=8, refine=1) == [False] * 5 + [True] * 3
    # with nothing to start from, the first is drawn
    assert refined(family, "e", trials=3, refine=1, start_from=[]) == [False, True, True]


def test_a_search_without_numbers_goes_on_as_it_began(family: Path) -> None:
    (family / "run").mkdir()
    choices = {"linear": {"weight": 1.0}, "ties": {"weight": 1.0, "density": 0.5, "lambda": 1.0}}
    space = load(family, methods=choices, search={"trials": 8, "refine": 0.5, "start_from": []})
    trials = finished(run(space, hash_evaluator(family / "run")))
    assert not any(REFINES in trial.user_attrs for trial in trials)
    assert {trial.params["method"] for trial in trials} == {"linear", "ties"}


def test_a_killed_search_refines_the_same_points(family: Path) -> None:
    space = load(family, search={"trials": 14, "refine": 0.4, "sampler": "random"})
    for name in ("whole", "parts"):
        (family / name).mkdir()
    whole = run(space, hash_evaluator(family / "whole"))

    def dies(_: Recipe) -> None:
        raise Killed

    for n_trials in (9, 2, 1):
        with pytest.raises(Killed):
            run(space, hash_evaluator(family / "parts"), RecordingObserver(kill_after=n_trials))
        with pytest.raises(Killed):
            run(space, hash_evaluator(family / "parts", dies))
    parts = run(space, hash_evaluator(family / "parts"))
    assert tried(parts) == tried(whole)
    assert len({str(trial.params) for trial in finished(parts)}) == 14
    assert sum(REFINES in trial.user_attrs for trial in finished(parts)) == 5
