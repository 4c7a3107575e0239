"""The loop of a search: ask, merge, score, tell."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from mergesearch.errors import CandidateError, RecipeError
from mergesearch.recipe import Recipe
from mergesearch.runs import TrialEntry
from mergesearch.scores import Scores
from mergesearch.searching import greedy_soup
from mergesearch.searching.baselines import soup_of
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.goals import Goals
from mergesearch.searching.history import History, broken_by, history_of, is_feasible, scores_of
from mergesearch.searching.observer import Observer, TrialEvent
from mergesearch.searching.policies.racing import N_BLOCKS, Rival, race
from mergesearch.searching.policies.refining import neighbour
from mergesearch.searching.policies.samplers import (
    GENERATIONAL,
    sampler_for,
    sampler_of,
    startup_of,
)
from mergesearch.searching.policies.starts import Start, starts
from mergesearch.searching.policies.stopping import nearest_limit, reason_to_stop
from mergesearch.searching.study import (
    BEFORE,
    DOCUMENTS,
    ERROR,
    LABEL,
    RECIPE,
    REFINES,
    SECONDS,
    SHARE,
    TOTAL,
    count_interrupted,
)
from mergesearch.space import SearchSpace, Shape, SoupOrder, suggest


@dataclass(frozen=True)
class _Result:
    """A trial's candidate, and how it did."""

    recipe: Recipe
    scores: Scores
    #: Of the documents it was scored on.
    share: float


class Search:
    """A study under way.

    Args:
        study: new or re-opened; trials that it holds count.
        space: what is searched, and how.
        judge: merges and scores.
        shape: of the models.
        observer: is told of every trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        judge: CandidateEvaluator,
        shape: Shape,
        observer: Observer,
    ) -> None:
        self.study = study
        self.goals = Goals(space, judge)
        self._space = space
        self._judge = judge
        self._shape = shape
        self._observer = observer
        self._starts: Iterator[Start] = iter(())

    @property
    def history(self) -> History:
        """What its finished trials say."""
        return history_of(self.study, self.goals)

    def run(self) -> None:
        """Run trials until the budget is spent or trials bring nothing more, and say which."""
        settings = self._space.search
        points, left_out = starts(self._space, self._shape)
        if left_out and not self.study.get_trials(deepcopy=False):
            labels = ", ".join(left_out)
            self._observer.stage(f"not in this space, so not tried first: {labels}")
        self._starts = iter(points)
        if self._counts_documents:
            count_interrupted(self.study, self._judge.n_documents_known)
        history = self.history
        self._record(history)
        while not (reason := reason_to_stop(settings, history, self._judge)):
            history = self._one_trial(history)
        self._observer.stage(f"the search ends: {reason}")

    @property
    def _counts_documents(self) -> bool:
        return self._space.search.documents is not None

    def _one_trial(self, history: History) -> History:
        """Run one trial, and give the history with it."""
        start, before = time.perf_counter(), self._judge.n_documents_scored
        trial = self._ask(history)
        if self._counts_documents:
            trial.set_user_attr(BEFORE, self._judge.n_documents_known)
        try:
            result = self._realize(suggest(self._space, trial, self._shape), history)
        except (CandidateError, RecipeError) as failure:
            self._set_cost(trial, start, before)
            trial.set_user_attr(ERROR, str(failure))  # with which the trial has ended
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self._set_cost(trial, start, before)
            self._tell(trial, result)
        history = self.history
        self._record(history)
        self._say(history, trial.number)
        return history

    def _ask(self, history: History) -> Trial:
        """The next trial: a queued one, a starting point, a refinement, or the sampler's choice.

        All follow from the trials that have ended, so that after a kill the same one is next.
        """
        if not self._has_waiting():
            self._queue(history)
        name, seed = sampler_of(self._space), self._space.search.seed
        startup = startup_of(self._space)
        self.study.sampler = sampler_for(name, seed, len(history.trials), startup)
        trial = self.study.ask()
        if name in GENERATIONAL:
            _ = trial.relative_params  # by which a queued trial joins a generation, too
        return trial

    def _queue(self, history: History) -> None:
        """Queue the next starting point, or near the end of the budget a step of the refinement.

        They are queued one by one, so that one that a kill interrupts comes next again.
        """
        for point in self._starts:
            label = {LABEL: point.label}
            self.study.enqueue_trial(point.params, user_attrs=label, skip_if_exists=True)
            if self._has_waiting():
                return
        settings = self._space.search
        if history.front and nearest_limit(settings, history).share >= 1 - settings.refine:
            params = neighbour(history, settings.seed)
            if params is not None:
                self.study.enqueue_trial(params, user_attrs={REFINES: True})

    def _has_waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _set_cost(self, trial: Trial, start: float, n_before: int) -> None:
        """Enter what a trial took of the budget."""
        trial.set_user_attr(SECONDS, time.perf_counter() - start)
        trial.set_user_attr(DOCUMENTS, self._judge.n_documents_scored - n_before)

    def _tell(self, trial: Trial, result: _Result) -> None:
        outcome = self.goals.result(result.scores, self.goals.size(result.recipe))
        attributes = {
            RECIPE: result.recipe.hash,
            TOTAL: result.scores.total,
            SHARE: result.share,
        }
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        for constraint, share in outcome.shares.items():
            trial.set_constraint(constraint, share)
        self.study.tell(trial, list(outcome.values))

    def _realize(self, proposal: Recipe | SoupOrder, history: History) -> _Result:
        """The scored candidate of a proposal: a recipe's, or that of the soup an order leads to."""
        if isinstance(proposal, SoupOrder):
            recipe = partial(soup_of, self._space)
            soup = greedy_soup(self._judge, self._space.parents, proposal.names, recipe=recipe)
            return _Result(soup.candidate.recipe, soup.candidate.scores, 1.0)
        if not self._space.search.racing or self._judge.is_scored(self._judge.merge(proposal)):
            return _Result(proposal, self._judge.score(proposal).scores, 1.0)
        blocks = self._judge.blocks(proposal, n_blocks=N_BLOCKS)
        raced = race(blocks, self._rivals(history), self.goals)
        return _Result(proposal, raced.projected, raced.share)

    def _rivals(self, history: History) -> list[Rival]:
        """The candidates of the front, with their scores."""
        rivals = []
        for trial in history.front:
            recipe = self._judge.record.recipe(trial.user_attrs[RECIPE])
            rivals.append(Rival(scores_of(trial, self._judge), self.goals.size(recipe)))
        return rivals

    def _record(self, history: History) -> None:
        """Enter the trials that the record lacks: also the last, where a kill came in between."""
        for trial in history.trials:
            scored = trial.state == TrialState.COMPLETE
            self._judge.record.add_trial(
                TrialEntry(
                    number=trial.number,
                    method=_what(trial, self._space),
                    recipe_hash=trial.user_attrs.get(RECIPE),
                    score=trial.user_attrs.get(TOTAL),
                    error=trial.user_attrs.get(ERROR),
                    share=trial.user_attrs.get(SHARE, 1.0),
                    objectives=dict(zip(self.goals.names, trial.values, strict=True))
                    if scored
                    else {},
                    feasible=is_feasible(trial),
                )
            )

    def _say(self, history: History, number: int) -> None:
        trial = next(t for t in history.trials if t.number == number)
        best = history.best
        self._observer.trial(
            TrialEvent(
                number=number,
                limit=nearest_limit(self._space.search, history),
                what=_what(trial, self._space),
                score=trial.user_attrs.get(TOTAL),
                best=best.user_attrs[TOTAL] if best else None,
                share=trial.user_attrs.get(SHARE, 1.0),
                n_documents=trial.user_attrs[DOCUMENTS],
                seconds=trial.user_attrs[SECONDS],
                breaks=broken_by(trial),
                error=trial.user_attrs.get(ERROR),
            )
        )


def _what(trial: FrozenTrial, space: SearchSpace) -> str:
    """What a trial tried: its method, and the name of a starting point."""
    method = str(trial.params.get("method", next(iter(space.methods))))
    label = "refined" if REFINES in trial.user_attrs else trial.user_attrs.get(LABEL)
    return f"{method} ({label})" if label else method
