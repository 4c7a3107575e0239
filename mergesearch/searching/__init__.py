"""The search: ask, merge, score, tell; resume, confirmation of the winner, soups as runs."""

from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.observer import Observer, Silent, TrialEvent
from mergesearch.searching.policies.stopping import Limit
from mergesearch.searching.runs import Outcome, open_run
from mergesearch.searching.setup import Estimate, SearchSetup, estimate, prepare
from mergesearch.searching.soups import GreedySoup, greedy_soup

__all__ = [
    "Candidate",
    "CandidateEvaluator",
    "Estimate",
    "GreedySoup",
    "Limit",
    "Observer",
    "Outcome",
    "SearchSetup",
    "Silent",
    "TrialEvent",
    "estimate",
    "greedy_soup",
    "open_run",
    "prepare",
]
