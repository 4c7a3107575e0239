from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mergesearch.errors import CandidateError
from mergesearch.recipe import Recipe
from mergesearch.runs import TrialRecord
from mergesearch.scores import Scores
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.history import History, HistoryReader
from mergesearch.searching.policies import sampling
from mergesearch.searching.policies.stopping import Limit, nearest_limit, reason_to_stop
from mergesearch.searching.study import finished
from mergesearch.space import SearchSettings
from tests.searching.watch import (
    Killed,
    RecordingObserver,
    ended,
    goals,
    hash_evaluator,
    load,
    run,
    scores,
    tried,
)


def knows(known: Mapping[str, Sequence[float]]) -> CandidateEvaluator:
    """An evaluator that knows some recipes' scores, by hash, on the documents of a task."""
    found: dict[str, Scores] = {key: scores({"a": values}) for key, values in known.items()}
    return cast(CandidateEvaluator, SimpleNamespace(known=found.get))


NOBODY = knows({})


def reason(
    settings: dict[str, Any], history: History, candidates: CandidateEvaluator = NOBODY
) -> str | None:
    return reason_to_stop(SearchSettings(**settings), history, candidates)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"trials": 3}, "the budget of 3 trials is spent"),
        ({"documents": 60}, "the budget of 60 documents is spent"),
        ({"minutes": 4.5}, "the budget of 4.5 minutes is spent"),
        ({"trials": 10**7, "documents": 40}, "the budget of 40 documents is spent"),
        ({"trials": 2, "documents": 10, "minutes": 1}, "the budget of 2 trials is spent"),
        ({"trials": 4, "documents": 61, "minutes": 4.6}, None),
    ],
)
def test_whichever_limit_is_reached_first_ends_a_search_and_is_its_reason(
    settings: dict[str, Any], line: str | None
) -> None:
    trials = [ended(i, 0.5, n_documents=20, minutes=1.5) for i in range(3)]
    assert reason(settings, History(tuple(trials), goals("score"))) == line


def test_the_share_that_is_spent_is_that_of_the_nearest_limit() -> None:
    history = History((ended(0, 0.5, n_documents=30, minutes=2),), goals("score"))
    for limits, limit, share in (
        ({"trials": 10}, Limit("trials", 1, 10), 0.1),
        ({"trials": 10, "documents": 100}, Limit("documents", 30, 100), 0.3),
        ({"trials": 10, "documents": 100, "minutes": 4}, Limit("minutes", 2, 4), 0.5),
    ):
        found = nearest_limit(SearchSettings(**limits), history)
        assert (found, found.share) == (limit, share)


def test_a_search_says_why_it_ends(family: Path) -> None:
    observer = RecordingObserver()
    (family / "run").mkdir()
    run(load(family, search={"trials": 3}), hash_evaluator(family / "run"), observer)
    assert observer.stages[-1] == "the search ends: the budget of 3 trials is spent"


RACED = {"seed": 1, "sampler": "random", "start_from": []}


def test_documents_are_those_that_the_model_answered_whatever_a_candidate_has(
    family: Path,
) -> None:
    """Stopped candidates cost what they were scored on, and known ones nothing."""
    (family / "run").mkdir()
    candidates, observer = hash_evaluator(family / "run", n_documents=96), RecordingObserver()
    space = load(family, search={**RACED, "trials": 50, "documents": 96 * 4})
    trials = finished(run(space, candidates, observer))
    assert observer.stages[-1] == "the search ends: the budget of 384 documents is spent"
    assert 4 < len(trials) < 50
    *before, _ = [trial.n_documents for trial in observer.trials]
    assert sum(before) < 96 * 4 <= candidates.n_documents_scored


@pytest.mark.parametrize("n_documents", [96 * 3 - 1, 96 * 4 + 5])
def test_documents_are_counted_over_processes_and_those_of_an_interrupted_trial_are_not_lost(
    family: Path, monkeypatch: pytest.MonkeyPatch, n_documents: int
) -> None:
    for name in ("whole", "parts"):
        (family / name).mkdir()
    settings = {**RACED, "trials": 50, "documents": n_documents}
    space = load(family, search=settings)
    whole = run(space, hash_evaluator(family / "whole", n_documents=96))

    for n_blocks in (3, 14, 1, 5):
        candidates = hash_evaluator(family / "parts", n_documents=96)
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(candidates.record.documents, "add", Dying(candidates, n_blocks))
            run(space, candidates)
    parts = run(space, hash_evaluator(family / "parts", n_documents=96))
    assert tried(parts) == tried(whole)
    n_known = hash_evaluator(family / "whole", n_documents=96).n_documents_known
    for study in (whole, parts):
        assert HistoryReader(study, goals("score")).read().n_documents == n_known


def test_documents_of_an_interrupted_trial_change_no_decision_on_it(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Startup, refinement and the end come by documents; every trial is killed half way."""
    for name in ("whole", "parts"):
        (family / name).mkdir()
    monkeypatch.setattr(sampling, "_STARTUP", 2)  # so that a short search learns
    settings = {**RACED, "sampler": "tpe", "documents": 96 * 6 + 10}
    space = load(family, search=settings)
    whole = tried(run(space, hash_evaluator(family / "whole", n_documents=96)))
    while True:
        candidates = hash_evaluator(family / "parts", n_documents=96)
        with monkeypatch.context() as patched:
            patched.setattr(candidates.record.documents, "add", Dying(candidates, 7))
            try:
                study = run(space, candidates)
            except Killed:
                continue
        break
    assert tried(study) == whole


class Dying:
    """Keeps so many blocks of documents, and then dies."""

    def __init__(self, candidates: CandidateEvaluator, n_blocks: int) -> None:
        self._add = candidates.record.documents.add
        self._left = n_blocks

    def __call__(self, *block: Any) -> None:
        self._add(*block)
        self._left -= 1
        if not self._left:
            raise Killed


def test_failed_candidates_are_trials_of_the_budget(family: Path) -> None:
    def fails(_: Recipe) -> None:
        raise CandidateError("NaN")

    (family / "run").mkdir()
    space = load(family, search={"trials": 4, "documents": 100})
    observer = RecordingObserver()
    assert len(finished(run(space, hash_evaluator(family / "run", fails), observer))) == 4
    assert observer.stages[-1] == "the search ends: the budget of 4 trials is spent"


def right(n: int) -> list[float]:
    return [1.0] * n + [0.0] * (100 - n)


NO_IMPROVEMENT = "2 trials brought no improvement (patience: 2)"
WITHIN_NOISE = (
    "2 trials brought an improvement within noise: +0.0100 [+0.0000, +0.0300] on the search split "
    "(patience: 2)"
)
#: The best so far gets 50 of 100 right; the next 51, and 80.
KNOWN = knows({"fifty": right(50), "one more": right(51), "many more": right(80)})
FIFTY = ended(0, 0.5, recipe="fifty")


@pytest.mark.parametrize(
    ("later", "line"),
    [
        ([ended(1, 0.4), ended(2, 0.3)], NO_IMPROVEMENT),
        ([ended(1, 0.6, share=0.5), ended(2, 0.3)], NO_IMPROVEMENT),
        ([ended(1, 0.51, recipe="one more"), ended(2, 0.3)], WITHIN_NOISE),
        ([ended(1, 0.3), ended(2, 0.8, recipe="many more")], None),
        ([ended(1, 0.8, recipe="many more"), ended(2, 0.3)], None),
        ([ended(1, 0.3)], None),  # not as many trials yet
    ],
    ids=["none", "a projection", "within noise", "beyond noise", "beyond it, before", "too early"],
)
def test_a_search_loses_patience_with_what_is_within_noise(later: list[Any], line: str) -> None:
    history = History((FIFTY, *later), goals("score"))
    assert reason({"patience": 2}, history, KNOWN) == line
    assert reason({}, history, KNOWN) is None


def test_an_improvement_counts_from_the_best_before_the_last_trials() -> None:
    """Many small steps are one large one; an old one is none."""
    steps = [ended(i, 0.5 + i / 10, recipe=f"{i}") for i in range(4)]
    candidates = knows({f"{i}": right(50 + 10 * i) for i in range(4)})
    assert reason({"patience": 3}, History(tuple(steps), goals("score")), candidates) is None
    idle = [*steps, *(ended(i, 0.1) for i in range(4, 7))]
    line = "3 trials brought no improvement (patience: 3)"
    assert reason({"patience": 3}, History(tuple(idle), goals("score")), candidates) == line


def test_without_a_best_there_is_nothing_to_lose_patience_with() -> None:
    history = History(tuple(ended(i, 0.5, share=0.5) for i in range(5)), goals("score"))
    assert reason({"patience": 2}, history) is None


@pytest.mark.parametrize(
    ("later", "line"),
    [
        ([ended(1, 0.5, 100), ended(2, 0.4, 120)], NO_IMPROVEMENT),
        ([ended(1, 0.4, 80), ended(2, 0.4, 120)], None),  # worse, but smaller
        ([ended(1, 0.6, 200), ended(2, 0.4, 120)], None),
    ],
    ids=["dominated", "a smaller one", "a better one"],
)
def test_with_several_objectives_whatever_the_front_gains_is_an_improvement(
    later: list[Any], line: str | None
) -> None:
    history = History((ended(0, 0.5, 100), *later), goals("score", "size"))
    assert reason({"patience": 2}, history) == line


def test_a_search_that_has_lost_patience_stays_ended(family: Path) -> None:
    (family / "run").mkdir()
    space = load(family, search={"trials": 60, "patience": 5, "sampler": "random"})
    observers = RecordingObserver(), RecordingObserver()
    for observer in observers:
        run(space, hash_evaluator(family / "run"), observer)
    assert 5 < len(observers[0].trials) < 60
    assert observers[1].trials == []
    assert observers[0].stages == observers[1].stages
    assert observers[0].stages[-1].startswith("the search ends: 5 trials brought ")


def test_a_search_ends_where_no_candidate_is_left(family: Path) -> None:
    # a method without a number to change, whose starting points are all there is
    settings = {"trials": 10_000, "documents": 10_000}
    space = load(family, methods={"model_stock": {}}, search=settings)
    observer = RecordingObserver()
    study = run(space, hash_evaluator(family), observer)
    assert 50 < len(finished(study)) < 70
    line = "50 trials in a row were candidates that are known: there seem to be no more"
    assert observer.stages[-1] == f"the search ends: {line}"


@pytest.mark.parametrize(
    "other",
    [ended(49, 0.5, n_documents=1), TrialRecord(49, "a method", None, None, error="not finite")],
)
def test_one_that_was_asked_or_failed_is_no_known_candidate(other: TrialRecord) -> None:
    settings, trials = {"trials": 100}, [ended(i, 0.5) for i in range(49)]
    assert reason(settings, History((*trials, ended(49, 0.5)), goals("score")))
    assert reason(settings, History((*trials, other), goals("score"))) is None
