"""The loop of a search: ask, evaluate, tell."""

import time
from contextlib import closing
from dataclasses import replace
from threading import RLock

import optuna
from optuna.trial import FixedTrial, Trial, TrialState

from mergesearch.errors import CandidateError, RecipeError
from mergesearch.objectives import Measured
from mergesearch.recipe import Recipe
from mergesearch.runs.told import scored_attributes
from mergesearch.samplers.trials import ERROR
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.goals import Goals
from mergesearch.searching.history import History, HistoryReader, scores_of
from mergesearch.searching.lanes import Lanes
from mergesearch.searching.learner import Learner
from mergesearch.searching.ledger import Ledger
from mergesearch.searching.observer import Observer
from mergesearch.searching.policies.racing import N_BLOCKS, Raced, race
from mergesearch.searching.policies.starts import Start
from mergesearch.searching.policies.stopping import nearest_limit, reason_to_stop
from mergesearch.searching.proposer import Proposer
from mergesearch.searching.soups import greedy_soup
from mergesearch.space import LearnedPoint, SearchSpace, Shape, SoupOrder, suggest


class Search:
    """A search under way.

    Args:
        study: new or re-opened; trials that it holds count.
        space: what is searched, and how.
        goals: what for.
        candidates: of the run; they merge and score.
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
        self._lanes = Lanes(candidates)
        self._reader = HistoryReader(study, goals, method=next(iter(space.methods)))
        self._proposer = Proposer(study, space, shape)
        budgeted = space.search.documents is not None
        self._ledger = Ledger(study, candidates, counts_documents=budgeted, n_workers=self._lanes.n)
        #: What scores the trials that are under way, and what these are.
        self._running: dict[int, tuple[CandidateEvaluator, str]] = {}
        #: Trials that are in the record.
        self._recorded: set[int] = set()
        #: Held while a trial is asked for or told: what only one thread may do at a time.
        self._lock = RLock()

    @property
    def history(self) -> History:
        """The trials that have ended."""
        return self._reader.read()

    def run(self) -> History:
        """Ask, evaluate and tell until the budget is spent or trials bring nothing more."""
        self._recover()
        while not (reason := self._reason_to_stop(self.history)):
            self._lanes.run(self._try_trials)
        self._candidates.record.set_stop(reason)
        self._observer.stage(f"the search ends: {reason}")
        return self.history

    def _try_trials(self) -> None:
        """Take trial after trial to whichever worker is idle."""
        while True:
            with self._lanes.lend() as candidates:
                start = time.perf_counter()
                asked = self._ask(candidates)  # start, refinement, sampler
                if asked is None:
                    return
                trial, history = asked
                with self._ledger.charge(trial, start, candidates):  # whatever happens
                    outcome = self._evaluate(trial, history, candidates)  # merge, score, race
                self._tell(trial, outcome)

    def _recover(self) -> None:
        """Settle what a process before this one left open."""
        left_out = ", ".join(self._proposer.left_out)
        if left_out and not self.study.get_trials(deepcopy=False):
            self._observer.stage(f"not in this space, so not tried first: {left_out}")
        self._ledger.recover()
        self._record(self.history)

    def _reason_to_stop(self, history: History) -> str | None:
        return reason_to_stop(self._space.search, history, self._candidates)

    def _ask(self, candidates: CandidateEvaluator) -> tuple[Trial, History] | None:
        """Ask for the next trial; there is none where those under way spend the budget."""
        with self._lock:
            n_documents = sum(one.n_documents_scored for one, _ in self._running.values())
            history = replace(
                self.history, n_running=len(self._running), n_documents_running=n_documents
            )
            if self._reason_to_stop(history):
                return None
            trial = self._proposer.ask(history, self._waits)
            self._running[trial.number] = candidates, f"trial {trial.number}"
            return trial, history

    def _say_working(self) -> None:
        running = self._running.values()
        self._observer.working({one.worker.name: what for one, what in running})

    def _waits(self, start: Start) -> bool:
        """Say if a starting point has to wait for what is being learned by another trial."""
        if self._learner is None:
            return False
        point = suggest(self._space, FixedTrial(start.params), self._shape)
        return isinstance(point, LearnedPoint) and self._learner.is_busy(point)

    def _evaluate(
        self, trial: Trial, history: History, candidates: CandidateEvaluator
    ) -> Raced | CandidateError | RecipeError:
        """Merge and score a trial's candidate; a failure is an outcome."""
        try:
            return self._score(self._suggested(trial), history, candidates)
        except (CandidateError, RecipeError) as failure:
            return failure

    def _suggested(self, trial: Trial) -> Recipe | SoupOrder | LearnedPoint:
        with self._lock:
            proposal = suggest(self._space, trial, self._shape)
            candidates, what = self._running[trial.number]
            method = trial.params.get("method", "")
            self._running[trial.number] = candidates, f"{what} {method}".rstrip()
            self._say_working()
            return proposal

    def _score(
        self,
        proposal: Recipe | SoupOrder | LearnedPoint,
        history: History,
        candidates: CandidateEvaluator,
    ) -> Raced:
        """Score a proposal's candidate: a recipe, or what an order or learning leads to."""
        if isinstance(proposal, LearnedPoint):
            assert self._learner is not None, "a space without learned coefficients proposes none"
            proposal = self._learner.recipe(proposal, candidates)
        if isinstance(proposal, SoupOrder):
            models, names = self._space.parents, proposal.names
            soup = greedy_soup(candidates, models, names, recipe=self._space.soup)
            return Raced.whole(soup.candidate)
        # merged first: tensors that were scored on all documents before are not raced
        if not self._space.search.racing or candidates.is_scored(candidates.merge(proposal)):
            return Raced.whole(candidates.score(proposal))
        with closing(candidates.blocks(proposal, n_blocks=N_BLOCKS)) as blocks:
            return race(blocks, self._rivals(history), self.goals)

    def _rivals(self, history: History) -> list[Measured]:
        """Gather the candidates of the front with their scores."""
        rivals = []
        for trial in history.front:
            assert trial.recipe_hash is not None
            recipe = self._candidates.record.recipe(trial.recipe_hash)
            rivals.append(self.goals.measured(recipe, scores_of(trial, self._candidates)))
        return rivals

    def _tell(self, trial: Trial, outcome: Raced | CandidateError | RecipeError) -> None:
        """Tell the study, the record and the observer of a trial, which has then ended."""
        with self._lock:
            del self._running[trial.number]
            self._say_working()
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
            history = self.history
            self._record(history)
            ended = next(t for t in reversed(history.trials) if t.number == trial.number)
            best = history.best.score if history.best else None
            self._observer.trial(ended, nearest_limit(self._space.search, history), best)

    def _record(self, history: History) -> None:
        """Enter the trials that the record lacks: also one told just before a kill."""
        for trial in history.trials:
            if trial.number not in self._recorded:
                self._candidates.record.add_trial(trial)
                self._recorded.add(trial.number)
