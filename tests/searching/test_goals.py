from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.api import search
from mergesearch.errors import CandidateError, InputError
from mergesearch.objectives import Measured
from mergesearch.recipe import ModelRef, Recipe, soup_recipe
from mergesearch.scores import Scores
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.finalists import split_front
from mergesearch.searching.goals import Goals, directions, goals_of
from mergesearch.searching.setup import prepare
from mergesearch.searching.study import finished
from mergesearch.space import SearchSettings, SearchSpace
from tests import tiny
from tests.searching.watch import RecordingObserver, goals, hash_evaluator, load, run, scores

ONE, TWO = (ModelRef.model_validate(f"/models/{name}") for name in ("one", "two"))
#: What the parents score in two tasks, in the second of which lower is better, and their sizes.
PARENTS: Mapping[str, tuple[Mapping[str, Sequence[float]], int]] = {
    soup_recipe([ONE]).hash: ({"acc": [0.5], "ppl": [20.0]}, 100),
    soup_recipe([TWO]).hash: ({"acc": [0.7], "ppl": [30.0]}, 120),
}


def two_tasks(acc: float, ppl: float) -> Scores:
    return scores({"acc": [acc], "ppl": [ppl]}, weights={"acc": 3}, lower=["ppl"])


class Parents:
    """An evaluator that knows the parents."""

    def score(self, recipe: Recipe, *, full: bool = False) -> Candidate:
        values = PARENTS[recipe.hash][0]
        return Candidate(recipe, "", two_tasks(values["acc"][0], values["ppl"][0]))

    def n_parameters(self, recipe: Recipe) -> int:
        return PARENTS[recipe.hash][1]


def constrained(*constraints: str, objectives: Sequence[str] = ("score",)) -> Goals:
    settings = SearchSettings.model_validate(
        {"constraints": constraints, "objectives": list(objectives)}
    )
    space = SearchSpace.model_construct(
        parents={"one": ONE, "two": TWO}, methods={}, suite=Path(), search=settings
    )
    return goals_of(space, cast(CandidateEvaluator, Parents()))


def measured(of: Scores, size: int) -> Measured:
    return Measured(cast(Recipe, None), of, size)


def violation(constraint: str, acc: float = 0.6, ppl: float = 25.0, size: int = 110) -> float:
    result = constrained(constraint).result(measured(two_tasks(acc, ppl), size))
    ((name, value),) = result.violations.items()
    assert name.split()[:2] == constraint.split()[:2]
    assert result.feasible is (value <= 0)
    return value


def test_all_objectives_but_the_size_are_the_better_the_higher() -> None:
    of = constrained(objectives=("score", "size", "acc", "ppl"))
    assert of.directions == ["maximize", "minimize", "maximize", "maximize"]
    assert directions(of.names) == of.directions
    decided = [o.from_documents for o in of.objectives]
    assert dict(zip(of.names, decided, strict=True)) == {n: n != "size" for n in of.names}
    result = of.result(measured(two_tasks(0.5, 20), 110))
    assert result.values == ((3 * 0.5 - 20) / 4, 110, 0.5, -20)
    assert result.feasible


def test_one_candidate_dominates_another_that_is_nowhere_better() -> None:
    of = constrained(objectives=("score", "size"))
    assert of.dominates((0.5, 100), (0.4, 100))
    assert of.dominates((0.5, 90), (0.5, 100))
    assert not of.dominates((0.5, 100), (0.5, 100))
    assert not of.dominates((0.5, 110), (0.4, 100))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=3))
def test_domination_is_an_order(points: list[tuple[int, int]]) -> None:
    of = goals("score", "size")
    a, b, c = points
    assert not (of.dominates(a, b) and of.dominates(b, a))
    assert of.dominates(a, c) or not (of.dominates(a, b) and of.dominates(b, c))


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("acc >= 0.5", -0.1),
        ("acc >= 0.75", 0.15),
        ("acc <= 0.5", 0.1),
        ("acc >= one", -0.1),
        ("acc >= two", 0.1),
        ("acc >= parents", 0.1),  # the best of them
        ("score >= one", -((3 * 0.6 - 25) / 4 - (3 * 0.5 - 20) / 4)),
        ("size <= 100", 10),
        ("size <= 0.1K", 10),
        ("size <= 1M", 110 - 1e6),
        ("size <= 0.5B", 110 - 5e8),
        ("size <= two", -10),
        ("size <= parents", 10),  # the smallest of them
        ("size >= 100", -10),
        # as it is reported, not negated
        ("ppl <= 24", 1),
        ("ppl <= 30", -5),
        ("ppl <= one", 5),
        ("ppl <= parents", 5),
        ("ppl <= two", -5),
    ],
)
def test_a_constraint_is_broken_by_how_much_it_is_missed(constraint: str, expected: float) -> None:
    assert violation(constraint) == pytest.approx(expected)


def test_a_parent_without_a_score_is_not_the_best_of_them_and_bounds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finite = Parents.score

    def score(self: Parents, recipe: Recipe, *, full: bool = False) -> Candidate:
        if recipe == soup_recipe([TWO]):
            raise CandidateError("the model's logits are not finite")
        return finite(self, recipe, full=full)

    monkeypatch.setattr(Parents, "score", score)
    assert violation("acc >= parents") == pytest.approx(-0.1)
    with pytest.raises(InputError) as caught:
        constrained("acc >= two")
    assert str(caught.value) == (
        "search.constraints: acc >= two: two has no score: the model's logits are not finite; take "
        "a number"
    )


def test_bounds_that_differ_are_two_however_long() -> None:
    of = constrained("size <= 150M", "size <= 150000001", "acc >= 0.1234567")
    names = list(of.result(measured(two_tasks(0.6, 25), 110)).violations)
    assert names == ["size <= 150000000", "size <= 150000001", "acc >= 0.1234567"]


def test_what_just_keeps_a_constraint_keeps_it() -> None:
    assert violation("size <= 110") == 0
    assert violation("acc >= one", acc=0.5) == 0


def test_every_constraint_must_be_kept() -> None:
    of = constrained("size <= 100", "acc >= 0.7", "acc >= one")
    result = of.result(measured(two_tasks(0.6, 25), 100))
    assert not result.feasible
    assert list(result.violations.values()) == pytest.approx([0, 0.1, -0.1])
    assert result.broken == ("acc >= 0.7 by 0.1",)


def test_the_size_of_parents_is_known_without_scoring_them() -> None:
    candidates = SimpleNamespace(n_parameters=Parents().n_parameters)
    settings = SearchSettings.model_validate({"constraints": ["size <= parents"]})
    space = SearchSpace.model_construct(
        parents={"one": ONE, "two": TWO}, methods={}, suite=Path(), search=settings
    )
    assert (
        not goals_of(space, cast(CandidateEvaluator, candidates))
        .result(measured(two_tasks(0.6, 25), 101))
        .feasible
    )


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"constraints": ["size < 3"]}, "a constraint is written as in 'size <= 150M'"),
        ({"constraints": ["first >= nan"]}, "must be a finite number, got nan"),
        ({"constraints": ["size"]}, "a constraint is written as in"),
        ({"constraints": ["first >= 1 or 2"]}, "a constraint is written as in"),
        (
            {"constraints": ["first >= three"]},
            "unknown bound 'three'; available: a number",
        ),
        ({"constraints": ["size <= 3X"]}, "unknown bound '3X'"),
        ({"objectives": ["size"]}, "the size alone is no objective"),
        ({"objectives": []}, "objectives"),
        ({"objectives": ["score", "score"]}, "an objective may be named once"),
    ],
)
def test_what_no_goal_can_mean_is_refused_when_the_space_is_read(
    family: Path, search: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(family, search=search)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"objectives": ["score", "frist"]}, "search.objectives: unknown objective 'frist'"),
        ({"constraints": ["frist >= 0.5"]}, "search.constraints: unknown objective 'frist'"),
        ({"objectives": ["third"]}, "unknown objective 'third'"),  # of the other split
        ({"constraints": ["surprise >= 20"]}, "lower is better in surprise; write <="),
        ({"constraints": ["surprise >= one"]}, "lower is better in surprise; write <="),
    ],
)
def test_a_goal_that_the_suite_does_not_have_is_refused_before_anything_runs(
    family: Path, search: dict[str, Any], message: str
) -> None:
    lower = {"metric": "acc", "aggregation": "mean", "higher_is_better": False}
    tiny.task(family / "tasks", "surprise", metric_list=[lower])
    suite = (family / "suite.yaml").read_text()
    added = suite.replace("held_out:", "  - {task: surprise, metric: acc}\nheld_out:")
    (family / "suite.yaml").write_text(added)
    prepare(load(family, search={"constraints": ["surprise <= one"]}))
    with pytest.raises(InputError) as caught:
        prepare(load(family, search=search))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_study_is_told_by_how_much_each_constraint_is_broken(family: Path) -> None:
    (family / "run").mkdir()
    candidates = hash_evaluator(family / "run")
    space = load(family, search={"trials": 20, "constraints": ["first <= 0.9", "score >= one"]})
    study = run(space, candidates)
    one = candidates.score(soup_recipe([space.parents["one"]])).total
    feasible = []
    for trial, entry in zip(finished(study), candidates.record.trials, strict=True):
        assert trial.value is not None
        expected = {
            "first <= 0.9": (trial.value - 0.9) / 0.9,
            "score >= one": (one - trial.value) / one,
        }
        assert trial.constraints == pytest.approx(expected)
        assert entry.feasible is (one <= trial.value <= 0.9)
        feasible.append(entry.feasible)
    assert {*feasible} == {True, False}
    # Optuna's own best trial is feasible, too
    assert one <= study.best_value <= 0.9


def candidates_of(*values: tuple[float, int]) -> list[Candidate]:
    """Candidates by their score and size, which stands in the place of their recipe."""
    return [Candidate(cast(Recipe, n), "", scores({"acc": [value]})) for value, n in values]


def winner(
    of: Goals, *values: tuple[float, int], observer: RecordingObserver | None = None
) -> list[float]:
    """The scores of the front, the winner first."""
    of._n_parameters = lambda size: cast(int, size)
    front, others = split_front(candidates_of(*values), of, observer or RecordingObserver())
    assert len(front) + len(others) == len(values)
    return [candidate.total for candidate in front]


def test_what_breaks_a_constraint_does_not_win_while_anything_keeps_it() -> None:
    observer = RecordingObserver()
    assert winner(
        constrained("size <= 100"), (0.9, 120), (0.3, 90), (0.5, 100), observer=observer
    ) == [0.5]
    assert observer.stages == []
    both = constrained("size <= 100", objectives=("score", "size"))
    assert winner(both, (0.9, 120), (0.3, 90), (0.5, 100), (0.2, 95)) == [0.5, 0.3]


def test_where_nothing_keeps_the_constraints_the_nearest_wins_and_what_it_breaks_is_said() -> None:
    observer = RecordingObserver()
    of = constrained("size <= 80", "acc >= 0.95")
    # as shares of the bounds: 0.25 + 0.47 for the first, 0.5 + 0.05, and 1 + 0.02
    assert winner(of, (0.5, 100), (0.9, 120), (0.93, 160), observer=observer) == [0.9]
    assert observer.stages == [
        "no finalist keeps every constraint on the whole search split; the winner breaks "
        "size <= 80 by 40 and acc >= 0.95 by 0.05"
    ]


def test_a_search_whose_winner_breaks_a_constraint_says_so(family: Path) -> None:
    observer = RecordingObserver()
    space = load(family, search={"trials": 3, "constraints": ["size <= 1K", "first >= 0"]})
    search(space, family / "run", device="cpu", observer=observer)
    assert {trial.broken for trial in observer.trials} == {("size <= 1000",)}
    (line,) = (line for line in observer.stages if line.startswith("no finalist keeps"))
    assert "the winner breaks size <= 1000 by " in line
    assert "first" not in line
