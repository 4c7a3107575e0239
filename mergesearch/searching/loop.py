"""The loop of a search: ask, evaluate, tell."""

import time

import optuna
from optuna.trial import Trial, TrialState

from mergesearch.errors import CandidateError, RecipeError
from mergesearch.objectives import Measured
from mergesearch.recipe import Recipe
from mergesearch.samplers.trials import ERROR
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.goals import Goals
from mergesearch.searching.history import History, history_of, scores_of
from mergesearch.searching.learner import Learner
from mergesearch.searching.ledger import Ledger
from mergesearch.searching.observer import Observer
from mergesearch.searching.policies.racing import N_BLOCKS, Raced, race
from mergesearch.searching.policies.stopping import nearest_limit, reason_to_stop
from mergesearch.searching.proposer import Proposer
from mergesearch.searching.soups import greedy_soup
from mergesearch.searching.trials import scored_attributes
from mergesearch.space import LearnedPoint, SearchSpace, Shape, SoupOrder, suggest


class Search:
    """A search under way.

    Args:
        study: new or re-opened; trials that it holds count.
        space: what is searched, and how.
        goals: what for.
        candidates: merges and scores.
        shape: of the models.
        observer: is told of every trial.
        learner: of the coefficients that the space learns, if it does.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        goals: Goals,
        candidates: CandidateEvaluator,
        shape: Shape,
        observer: Observer,
        learner: Learner | None = None,
    ) -> None:
        self.study = study
        self.goals = goals
        self._space = space
        self._candidates = candidates
        self._shape = shape
        self._observer = observer
        self._learner = learner
        self._proposer = Proposer(study, space, shape)
        budgeted = space.search.documents is not None
        self._ledger = Ledger(study, candidates, counts_documents=budgeted)

    @property
    def history(self) -> History:
        """The trials that have ended."""
        return history_of(self.study, self.goals, method=next(iter(self._space.methods)))

    def run(self) -> History:
        """Ask, evaluate and tell until the budget is spent or trials bring nothing more."""
        history = self._recover()
        while not (reason := reason_to_stop(self._space.search, history, self._candidates)):
            start = time.perf_counter()
            trial = self._proposer.ask(history)  # start, refinement, sampler
            with self._ledger.charge(trial, start):  # seconds and documents, whatever happens
                outcome = self._evaluate(trial, history)  # merge, score, race
            history = self._tell(trial, outcome)
        self._candidates.record.set_stop(reason)
        self._observer.stage(f"the search ends: {reason}")
        return history

    def _recover(self) -> History:
        """Settle what a process before this one left open."""
        left_out = ", ".join(self._proposer.left_out)
        if left_out and not self.study.get_trials(deepcopy=False):
            self._observer.stage(f"not in this space, so not tried first: {left_out}")
        self._ledger.recover()
        return self._recorded()

    def _evaluate(self, trial: Trial, history: History) -> Raced | CandidateError | RecipeError:
        """Merge and score a trial's candidate; a failure is an outcome."""
        try:
            return self._score(suggest(self._space, trial, self._shape), history)
        except (CandidateError, RecipeError) as failure:
            return failure

    def _score(self, proposal: Recipe | SoupOrder | LearnedPoint, history: History) -> Raced:
        """Score a proposal's candidate: a recipe, or what an order or learning leads to."""
        if isinstance(proposal, LearnedPoint):
            assert self._learner is not None, "a space without learned coefficients proposes none"
            proposal = self._learner.recipe(proposal)
        if isinstance(proposal, SoupOrder):
            models, names = self._space.parents, proposal.names
            soup = greedy_soup(self._candidates, models, names, recipe=self._space.soup)
            return Raced.whole(soup.candidate)
        if not self._space.search.racing or self._is_known(proposal):
            return Raced.whole(self._candidates.score(proposal))
        blocks = self._candidates.blocks(proposal, n_blocks=N_BLOCKS)
        return race(blocks, self._rivals(history), self.goals)

    def _is_known(self, recipe: Recipe) -> bool:
        """Merge a recipe, and say if its tensors were scored on all documents before."""
        return self._candidates.is_scored(self._candidates.merge(recipe))

    def _rivals(self, history: History) -> list[Measured]:
        """Gather the candidates of the front with their scores."""
        rivals = []
        for trial in history.front:
            assert trial.recipe_hash is not None
            recipe = self._candidates.record.recipe(trial.recipe_hash)
            rivals.append(self.goals.measured(recipe, scores_of(trial, self._candidates)))
        return rivals

    def _tell(self, trial: Trial, outcome: Raced | CandidateError | RecipeError) -> History:
        """Tell the study, the record and the observer of a trial, which has then ended."""
        if isinstance(outcome, Raced):
            recipe, scores = outcome.candidate.recipe, outcome.projected
            result = self.goals.result(self.goals.measured(recipe, scores))
            attributes = scored_attributes(recipe.hash, scores.total, outcome.share)
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
            for constraint, share in result.shares.items():
                trial.set_constraint(constraint, share)
            self.study.tell(trial, list(result.values))
        else:
            trial.set_user_attr(ERROR, str(outcome))  # with which the trial has ended
            self.study.tell(trial, state=TrialState.FAIL)
        history = self._recorded()
        ended = next(t for t in history.trials if t.number == trial.number)
        best = history.best.score if history.best else None
        self._observer.trial(ended, nearest_limit(self._space.search, history), best)
        return history

    def _recorded(self) -> History:
        """Enter the trials that the record lacks: also one told just before a kill."""
        history = self.history
        for trial in history.trials:
            self._candidates.record.add_trial(trial)
        return history
