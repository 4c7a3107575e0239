"""What the finished trials of a study say."""

from dataclasses import dataclass, replace
from functools import cached_property

import optuna
from optuna.trial import FrozenTrial, TrialState

from mergesearch.scores import Scores
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.goals import Goals, distance
from mergesearch.searching.study import (
    DOCUMENTS,
    INTERRUPTED,
    RECIPE,
    SECONDS,
    SHARE,
    TOTAL,
    finished,
)


@dataclass(frozen=True)
class History:
    """The trials that count: scored ones, and ones whose candidate failed; by number."""

    trials: tuple[FrozenTrial, ...]
    goals: Goals
    #: Documents that the model answered for trials which a kill then interrupted.
    n_interrupted: int = 0

    @property
    def n_documents(self) -> int:
        """Documents that the model answered."""
        ended = sum(trial.user_attrs.get(DOCUMENTS, 0) for trial in self.trials)
        return ended + self.n_interrupted

    @property
    def minutes(self) -> float:
        """Time that the trials took."""
        return sum(trial.user_attrs.get(SECONDS, 0.0) for trial in self.trials) / 60

    @cached_property
    def scored(self) -> tuple[FrozenTrial, ...]:
        """Those that have a score, measured or projected."""
        return tuple(trial for trial in self.trials if trial.state == TrialState.COMPLETE)

    @cached_property
    def front(self) -> tuple[FrozenTrial, ...]:
        """Those scored on all documents that keep the constraints and that none dominates.

        The best first, by the suite's score. Of equals it is the first.
        """
        whole = [t for t in self.scored if t.user_attrs[SHARE] == 1 and is_feasible(t)]
        front: list[FrozenTrial] = []
        for trial in whole:
            if not any(_covers(self.goals, other, trial) for other in front):
                front = [t for t in front if not self.goals.dominates(trial.values, t.values)]
                front.append(trial)
        return tuple(sorted(front, key=_score, reverse=True))

    @property
    def best(self) -> FrozenTrial | None:
        """The head of the front, or for want of one what comes nearest to the constraints."""
        return self.front[0] if self.front else min(self.scored, key=_rank, default=None)

    def ranked(self) -> list[FrozenTrial]:
        """All scored trials: the front first, then by violation and score."""
        first = {trial.number for trial in self.front}
        return sorted(self.scored, key=lambda trial: (trial.number not in first, *_rank(trial)))

    def before(self, n: int) -> "History":
        """The history as it was `n` trials ago."""
        return replace(self, trials=self.trials[: len(self.trials) - n])


def history_of(study: optuna.Study, goals: Goals) -> History:
    """The history of a study."""
    interrupted = study.user_attrs.get(INTERRUPTED, {})
    return History(tuple(finished(study)), goals, sum(interrupted.values()))


def scores_of(trial: FrozenTrial, judge: CandidateEvaluator) -> Scores:
    """The scores of a trial that was scored on all documents."""
    scores = judge.known(trial.user_attrs[RECIPE])
    assert scores, "what has the share 1 was scored on all documents"
    return scores


def broken_by(trial: FrozenTrial) -> tuple[str, ...]:
    """The constraints that a scored trial does not keep."""
    return tuple(name for name, violation in trial.constraints.items() if violation > 0)


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a scored trial keeps every constraint."""
    return not broken_by(trial)


def _covers(goals: Goals, other: FrozenTrial, trial: FrozenTrial) -> bool:
    return other.values == trial.values or goals.dominates(other.values, trial.values)


def _score(trial: FrozenTrial) -> float:
    return trial.user_attrs[TOTAL]


def _rank(trial: FrozenTrial) -> tuple[float, float]:
    return distance(trial.constraints), -_score(trial)
