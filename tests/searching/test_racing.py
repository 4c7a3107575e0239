import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from optuna.trial import FrozenTrial

from mergesearch.objectives import Measured
from mergesearch.recipe import Recipe
from mergesearch.runs.told import DOCUMENTS, RECIPE, SHARE, TOTAL
from mergesearch.scores import Scores
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.policies import racing
from mergesearch.searching.policies.racing import LEVEL, N_BLOCKS, race
from mergesearch.searching.study import finished
from mergesearch.tasks.order import split_evenly
from tests.searching.watch import HashEvaluator, goals, load, run, scores

#: Documents of a task, of which a block has enough for the first decision.
N = 30 * N_BLOCKS


class Blocks(Iterator[Candidate]):
    """A candidate with these scores, block by block; remembers how many were asked for."""

    def __init__(self, whole: Scores) -> None:
        self.n_asked = 0
        self._whole = whole
        self._ends = [split_evenly(len(t.doc_ids), N_BLOCKS) for t in whole.tasks]

    def __next__(self) -> Candidate:
        if self.n_asked == N_BLOCKS:
            raise StopIteration
        ends = [ranges[self.n_asked].stop for ranges in self._ends]
        self.n_asked += 1
        so_far = (task.on(range(n)) for task, n in zip(self._whole.tasks, ends, strict=True) if n)
        return Candidate(cast(Recipe, None), "", Scores(tuple(so_far)))


def measured(of: Scores, size: int = 0) -> Measured:
    """A rival of a race, without the recipe that no objective here asks for."""
    return Measured(cast(Recipe, None), of, size)


def share_raced(ours: Scores, *rivals: Scores, objectives: Sequence[str] = ("score",)) -> float:
    return race(Blocks(ours), [measured(rival) for rival in rivals], goals(*objectives)).share


#: What a candidate scores on every document: always the same, so that no test is in doubt.
WORSE, BETTER = [0.0] * N, [1.0] * N


def test_a_clearly_worse_candidate_is_stopped_and_its_other_documents_never_asked_for() -> None:
    generator = np.random.default_rng(0)
    best, bad = (scores({"first": [*map(float, generator.random(N) < p)]}) for p in (0.8, 0.4))
    blocks = Blocks(bad)
    raced = race(blocks, [measured(best)], goals("score"))
    assert blocks.n_asked <= 3
    assert raced.share == pytest.approx(blocks.n_asked / N_BLOCKS)
    assert raced.candidate.scores.n_documents == 30 * blocks.n_asked


def test_without_rivals_nothing_is_stopped() -> None:
    blocks = Blocks(scores({"first": WORSE}))
    raced = race(blocks, [], goals("score"))
    assert (blocks.n_asked, raced.share) == (N_BLOCKS, 1.0)
    assert raced.projected == scores({"first": WORSE})


def test_a_candidate_as_good_on_every_document_is_scored_on_all() -> None:
    values = np.random.default_rng(1).random(N).tolist()
    assert share_raced(scores({"first": values}), scores({"first": values})) == 1


def test_nothing_is_decided_on_a_handful_of_documents() -> None:
    few = racing._FEWEST - 1
    assert share_raced(scores({"first": [0.0] * few}), scores({"first": [1.0] * few})) == 1


def paired(
    generator: np.random.Generator, n: int, n_won: int, n_lost: int
) -> tuple[Scores, Scores]:
    """Two candidates, of whose documents one wins and loses so many, and the others are ties."""
    leads = generator.permutation(np.repeat([1, -1, 0], [n_won, n_lost, n - n_won - n_lost]))
    ties = generator.random(n) < 0.6
    ours, rival = (np.where(leads == 0, ties, leads == winner) for winner in (1, -1))
    return scores({"first": [*ours]}), scores({"first": [*rival]})


@pytest.mark.parametrize(
    ("n_won", "n_lost", "level"),
    [(10, 10, LEVEL), (22, 10, 0.05)],
    ids=["equals are stopped at the level", "winners hardly ever"],
)
def test_how_often_a_candidate_is_stopped_that_should_not_be(
    n_won: int, n_lost: int, level: float
) -> None:
    generator, n_pairs = np.random.default_rng(2), 150
    shares = [share_raced(*paired(generator, 96, n_won, n_lost)) for _ in range(n_pairs)]
    stopped = sum(share < 1 for share in shares) / n_pairs
    assert stopped <= level + 2 * math.sqrt(level * (1 - level) / n_pairs)


@pytest.mark.parametrize("sizes", [(12,) * 40, (300, 12)], ids=["many small", "one small"])
def test_tasks_of_few_documents_stop_no_candidate_that_is_as_good(sizes: Sequence[int]) -> None:
    generator, n_good, n_stopped = np.random.default_rng(5), 0, 0
    while n_good < 100:
        ours, rival = (
            scores({f"t{i}": [*map(float, generator.random(n) < p)] for i, n in enumerate(sizes)})
            for p in (0.5, 0.5)
        )
        if ours.total >= rival.total:
            n_good += 1
            n_stopped += share_raced(ours, rival) < 1
    # as good on all documents, and not on the first alone: well below the level
    assert n_stopped / n_good <= 0.1


def test_a_projection_is_the_rivals_score_and_the_lead_on_the_documents_that_both_have() -> None:
    # in the first block the candidate is 1 behind in one task and 3 behind in the other; the
    # rival is right in the first block only, so what it scores there is not what it scores on all
    first = [1.0] * 30 + [0.0] * (N - 30)
    rival = scores({"a": first, "b": [2.0] * N}, weights={"a": 3}, lower=["b"])
    ours = scores({"a": WORSE, "b": [5.0] * N}, weights={"a": 3}, lower=["b"])
    raced = race(Blocks(ours), [measured(rival)], goals("score"))
    assert raced.share == pytest.approx(1 / N_BLOCKS)
    a, b = raced.projected.tasks
    assert a.value == pytest.approx(1 / N_BLOCKS - 1)
    assert b.value == pytest.approx(2 + (5 - 2))
    assert raced.projected.total == pytest.approx((3 * (1 / N_BLOCKS - 1) - 5) / 4)


def test_a_task_in_which_lower_is_better_is_lost_by_the_higher() -> None:
    rival, ours = (scores({"b": [value] * N}, lower=["b"]) for value in (2.0, 3.0))
    assert share_raced(ours, rival) < 1
    assert share_raced(rival, ours) == 1


def test_of_several_objectives_one_rival_must_be_ahead_in_all() -> None:
    both = ("a", "b")
    better = scores({"a": BETTER, "b": BETTER})
    in_a = scores({"a": BETTER, "b": WORSE})
    in_b = scores({"a": WORSE, "b": BETTER})
    neither = scores({"a": WORSE, "b": WORSE})
    assert share_raced(neither, better, objectives=both) < 1
    assert share_raced(neither, in_a, objectives=both) == 1  # as good in b
    assert share_raced(in_a, in_b, objectives=both) == 1
    half = scores({"a": [0.5] * N, "b": [0.5] * N})
    assert share_raced(half, in_a, in_b, objectives=both) == 1  # each is behind in one
    assert share_raced(half, in_a, in_b, better, objectives=both) < 1


@pytest.mark.parametrize(("size", "is_stopped"), [(90, False), (100, True), (110, True)])
def test_a_smaller_candidate_is_not_beaten_where_size_is_an_objective(
    size: int, is_stopped: bool
) -> None:
    rival = measured(scores({"a": BETTER}), 100)
    raced = race(Blocks(scores({"a": WORSE})), [rival], goals("score", "size", size=size))
    assert (raced.share < 1) is is_stopped


def test_nothing_is_decided_before_each_task_has_a_document() -> None:
    """One document of a task comes in the middle; it may be what decides."""
    rival = scores({"a": BETTER, "b": [0.0]}, weights={"b": 9})
    ours = scores({"a": WORSE, "b": [1.0]}, weights={"b": 9})
    for objectives in (("score",), ("b", "a"), ("a", "b")):
        assert share_raced(ours, rival, objectives=objectives) == 1
    worse = scores({"a": WORSE, "b": [0.0]}, weights={"b": 9})
    assert 0.5 < share_raced(worse, rival) < 1


def searched(
    family: Path, change: Callable[[HashEvaluator], None] | None = None
) -> tuple[list[FrozenTrial], HashEvaluator]:
    """The trials of a search over candidates of 96 documents, and who scored them."""
    space = load(family, search={"trials": 20, "seed": 1, "sampler": "random"})
    candidates = HashEvaluator(family / "run", n_documents=96)
    if change:
        change(candidates)
    return finished(run(space, cast(CandidateEvaluator, candidates))), candidates


def test_the_study_and_the_record_hold_what_a_stopped_candidate_would_have_reached(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (family / "run").mkdir()
    rivals_of: list[list[Measured]] = []
    original = racing.race

    def observer(
        blocks: Iterator[Candidate], rivals: Sequence[Measured], of: racing.Goals
    ) -> object:
        rivals_of.append(list(rivals))
        return original(blocks, rivals, of)

    monkeypatch.setattr("mergesearch.searching.loop.race", observer)
    trials, candidates = searched(family)
    stopped = [trial for trial in trials if trial.user_attrs[SHARE] < 1]
    assert len(stopped) > 5
    for trial, entry, rivals in zip(trials, candidates.record.trials, rivals_of, strict=True):
        assert (entry.share, entry.score) == (trial.user_attrs[SHARE], trial.value)
        assert trial.user_attrs[TOTAL] == trial.value
        assert trial.user_attrs[DOCUMENTS] == round(96 * trial.user_attrs[SHARE])
        # the best so far of those that were scored on all documents
        whole = [t for t in trials[: trial.number] if t.user_attrs[SHARE] == 1]
        best = max((t.value or 0 for t in whole), default=None)
        assert [rival.scores.total for rival in rivals] == ([] if best is None else [best])
        if trial in stopped:
            known = candidates._scores(trial.user_attrs[RECIPE], trial.user_attrs[DOCUMENTS])
            lead = known.total - rivals[0].scores.on(known).total
            assert trial.value == pytest.approx(rivals[0].scores.total + lead)
            assert lead < 0


def test_a_candidate_that_is_known_in_full_is_not_raced(family: Path) -> None:
    (family / "run").mkdir()
    trials, _ = searched(family)
    stopped = {t.user_attrs[RECIPE] for t in trials if t.user_attrs[SHARE] < 1}

    def knows(candidates: HashEvaluator) -> None:
        for recipe_hash in stopped:
            candidates.score(candidates.record.recipe(recipe_hash))

    (family / "run" / "journal.log").unlink()
    again, _ = searched(family, knows)
    assert [t.user_attrs[SHARE] for t in again if t.user_attrs[RECIPE] in stopped] == [1] * len(
        stopped
    )
