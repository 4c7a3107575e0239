"""What a search says while it runs."""

from dataclasses import dataclass
from typing import Protocol

from mergesearch.searching.policies.stopping import Limit


@dataclass(frozen=True)
class TrialEvent:
    """One trial that has ended."""

    number: int
    #: The limit of the budget that is nearest, this trial included.
    limit: Limit
    #: What was tried: a method, or the name of a starting point.
    what: str
    #: None where the candidate failed.
    score: float | None
    best: float | None
    #: Share of the documents that the score is from; below 1 the candidate was stopped early.
    share: float
    #: Documents scored for this trial; 0 where the record knew the answer.
    n_documents: int
    seconds: float
    #: The constraints that the candidate does not keep.
    breaks: tuple[str, ...] = ()
    error: str | None = None


class Observer(Protocol):
    """Receives what a search has to say."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def trial(self, event: TrialEvent) -> None:
        """A trial has ended."""


class Silent:
    """An observer that says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def trial(self, event: TrialEvent) -> None:
        """Say nothing."""
