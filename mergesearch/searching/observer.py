"""The observer of a search: told of each stage, and of each trial that has ended."""

from typing import Protocol

from mergesearch.searching.policies.stopping import Limit
from mergesearch.searching.trials import TrialRecord


class Observer(Protocol):
    """Receives all that a search has to say."""

    def stage(self, text: str) -> None:
        """Hear that a new stage begins."""

    def trial(self, trial: TrialRecord, limit: Limit, best: float | None) -> None:
        """Hear that a trial has ended.

        Args:
            trial: its record.
            limit: of the budget, the one that is nearest, this trial included.
            best: the score of the best trial so far, if there is one.
        """

    def learning(self, done: int, most: int) -> None:
        """Hear how many documents were learned from, of how many in all passes."""


class Silent:
    """An observer that says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def trial(self, trial: TrialRecord, limit: Limit, best: float | None) -> None:
        """Say nothing."""

    def learning(self, done: int, most: int) -> None:
        """Say nothing."""


class Observers:
    """Several observers as one, told in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def stage(self, text: str) -> None:
        """Tell each of a stage."""
        for observer in self._observers:
            observer.stage(text)

    def trial(self, trial: TrialRecord, limit: Limit, best: float | None) -> None:
        """Tell each of a trial."""
        for observer in self._observers:
            observer.trial(trial, limit, best)

    def learning(self, done: int, most: int) -> None:
        """Tell each of the documents that were learned from."""
        for observer in self._observers:
            observer.learning(done, most)
