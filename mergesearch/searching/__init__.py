"""The search: ask, evaluate, tell; resume, confirmation of the winner, soups.

To run a search without its confirmation and to look at its trials:

    with open_run(space, folder) as (setup, candidates):
        history = open_search(setup, candidates).run()
        best = best_recipes(history, candidates, n=5)
        held_out = candidates.score(best[0], "held_out").total
"""

from mergesearch.runs import TrialRecord
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.contrasts import keep_contrasts
from mergesearch.searching.diagnosing import diagnose_run, keep_diagnosis
from mergesearch.searching.finalists import (
    N_FINALISTS,
    best_recipes,
    confirm,
    references,
    score_beside,
    score_in_full,
)
from mergesearch.searching.goals import Goals, goals_of
from mergesearch.searching.history import History
from mergesearch.searching.learner import Learner
from mergesearch.searching.loop import Search
from mergesearch.searching.observer import Observer, Observers, Silent
from mergesearch.searching.plan_only import PlanOnly, plan_only_of
from mergesearch.searching.policies.racing import Raced, replay
from mergesearch.searching.policies.stopping import Limit
from mergesearch.searching.runs import Outcome, open_learner, open_run, open_search
from mergesearch.searching.setup import Estimate, SearchSetup, estimate, prepare
from mergesearch.searching.soups import GreedySoup, greedy_soup
from mergesearch.searching.status import StatusFile

__all__ = [
    "N_FINALISTS",
    "Candidate",
    "CandidateEvaluator",
    "Estimate",
    "Goals",
    "GreedySoup",
    "History",
    "Learner",
    "Limit",
    "Observer",
    "Observers",
    "Outcome",
    "PlanOnly",
    "Raced",
    "Search",
    "SearchSetup",
    "Silent",
    "StatusFile",
    "TrialRecord",
    "best_recipes",
    "confirm",
    "diagnose_run",
    "estimate",
    "goals_of",
    "greedy_soup",
    "keep_contrasts",
    "keep_diagnosis",
    "open_learner",
    "open_run",
    "open_search",
    "plan_only_of",
    "prepare",
    "references",
    "replay",
    "score_beside",
    "score_in_full",
]
