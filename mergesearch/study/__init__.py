"""The study: ask, merge, score, tell; resume, confirmation of the winner, soups as runs."""

from mergesearch.study.budget import Limit
from mergesearch.study.observer import Observer, Silent, TrialEvent
from mergesearch.study.prepare import Bench, Estimate, estimate, prepare
from mergesearch.study.run import Outcome, search, soup

__all__ = [
    "Bench",
    "Estimate",
    "Limit",
    "Observer",
    "Outcome",
    "Silent",
    "TrialEvent",
    "estimate",
    "prepare",
    "search",
    "soup",
]
