"""The ended trials of a study: the best of them, the front, and what they cost."""

from bisect import insort
from dataclasses import dataclass, replace
from functools import cached_property

import optuna
from optuna.trial import FrozenTrial

from mergesearch.runs import TrialRecord
from mergesearch.runs.told import record_of
from mergesearch.samplers.trials import has_ended
from mergesearch.scores import Scores
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.goals import Goals, distance
from mergesearch.searching.study import INTERRUPTED


@dataclass(frozen=True)
class History:
    """The trials that count: scored ones, and ones whose candidate failed; by number."""

    trials: tuple[TrialRecord, ...]
    goals: Goals
    #: Documents that the model answered for trials which a kill then interrupted, but for the one
    #: that comes next: until it has ended they are as unspent as if nothing had been killed.
    n_interrupted: int = 0
    #: Trials under way, and documents that were answered for them so far.
    n_running: int = 0
    n_documents_running: int = 0
    #: The trials among which the front is found, by number, where it is not all of them: the front
    #: of before, and what has ended since.
    among: tuple[TrialRecord, ...] | None = None

    @property
    def n_asked(self) -> int:
        """Trials that were asked for and not interrupted."""
        return len(self.trials) + self.n_running

    @cached_property
    def n_documents(self) -> int:
        """Documents that the model answered."""
        n_ended = sum(trial.n_documents for trial in self.trials)
        return n_ended + self.n_interrupted + self.n_documents_running

    @cached_property
    def minutes(self) -> float:
        """Time that the trials took, those of several workers beside each other."""
        return sum(trial.seconds / trial.n_workers for trial in self.trials) / 60

    @cached_property
    def scored(self) -> tuple[TrialRecord, ...]:
        """Those that have a score, measured or projected."""
        return tuple(trial for trial in self.trials if trial.score is not None)

    @cached_property
    def front(self) -> tuple[TrialRecord, ...]:
        """Those scored on all documents that keep the constraints and that none dominates.

        The best first, by the suite's score. Of equals it is the first.
        """
        front: list[TrialRecord] = []
        among = self.scored if self.among is None else self.among
        for trial in (t for t in among if t.is_whole and t.feasible):
            if not any(_covers(self.goals, other, trial) for other in front):
                front = [t for t in front if not self.goals.dominates(trial.values, t.values)]
                front.append(trial)
        return tuple(sorted(front, key=_score, reverse=True))

    @property
    def best(self) -> TrialRecord | None:
        """The head of the front, or for want of one what comes nearest to the constraints."""
        return self.front[0] if self.front else min(self.scored, key=_rank, default=None)

    def ranked(self) -> list[TrialRecord]:
        """Sort all scored trials: the front first, then by violation and score."""
        first = {trial.number for trial in self.front}
        return sorted(self.scored, key=lambda trial: (trial.number not in first, *_rank(trial)))

    def before(self, n: int) -> "History":
        """Return the history as it was `n` trials ago."""
        return replace(self, trials=self.trials[: len(self.trials) - n], among=None)


class HistoryReader:
    """Reads the history of a study, each trial that has ended once.

    Args:
        study: with its trials.
        goals: of its search.
        method: of a space that has no other, whose trials do not name it.
    """

    def __init__(self, study: optuna.Study, goals: Goals, method: str = "") -> None:
        self._study = study
        self._goals = goals
        self._method = method
        #: Those that have ended, by number.
        self._ended: list[TrialRecord] = []
        #: The numbers of those that had not when it last looked, and of the next.
        self._open: list[int] = []
        self._next = 0
        #: Of the last history.
        self._front: tuple[TrialRecord, ...] = ()

    def read(self) -> History:
        """Read the trials that have ended."""
        new = [record_of(t, self._goals.names, self._method) for t in self._newly_ended()]
        for trial in new:
            insort(self._ended, trial, key=_number)
        interrupted = self._study.user_attrs.get(INTERRUPTED, {})
        last = self._ended[-1].number if self._ended else -1
        n_interrupted = sum(n for number, n in interrupted.items() if int(number) < last)
        among = sorted((*self._front, *new), key=_number)
        history = History(tuple(self._ended), self._goals, n_interrupted, among=tuple(among))
        self._front = history.front
        return history

    def _newly_ended(self) -> list[FrozenTrial]:
        """List what has ended since it last looked, and looks at nothing else."""
        trials = self._study.get_trials(deepcopy=False)
        looked_at = [trials[i] for i in self._open] + trials[self._next :]
        self._open = [trial.number for trial in looked_at if not trial.state.is_finished()]
        self._next = len(trials)
        return [trial for trial in looked_at if has_ended(trial)]


def scores_of(trial: TrialRecord, candidates: CandidateEvaluator) -> Scores:
    """Return the scores of a trial that was scored on all documents."""
    assert trial.recipe_hash is not None
    scores = candidates.known(trial.recipe_hash)
    assert scores, "what has the share 1 was scored on all documents"
    return scores


def _covers(goals: Goals, other: TrialRecord, trial: TrialRecord) -> bool:
    return other.values == trial.values or goals.dominates(other.values, trial.values)


def _number(trial: TrialRecord) -> int:
    return trial.number


def _score(trial: TrialRecord) -> float:
    assert trial.score is not None
    return trial.score


def _rank(trial: TrialRecord) -> tuple[float, float]:
    return distance(trial.violations), -_score(trial)
