"""The study: ask, merge, score, tell; resume, confirmation of the winner, soups as runs."""

from mergesearch.study.observer import Observer, Silent, TrialEvent
from mergesearch.study.prepare import Bench, Estimate, estimate, prepare
from mergesearch.study.run import Outcome, search, soup

__all__ = [
    "Bench",
    "Estimate",
    "Observer",
    "Outcome",
    "Silent",
    "TrialEvent",
    "estimate",
    "prepare",
    "search",
    "soup",
]
