"""The loop of a search: ask, merge, score, tell."""

import time
from functools import partial

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from mergesearch.candidates import Candidate, Judge
from mergesearch.errors import CandidateError, RecipeError
from mergesearch.recipe import Recipe
from mergesearch.runs import TrialEntry
from mergesearch.soups import greedy_soup
from mergesearch.space import SearchSpace, Shape, SoupOrder, starts, suggest
from mergesearch.study.observer import Observer, TrialEvent
from mergesearch.study.sampler import sampler_for
from mergesearch.study.soups import soup_of
from mergesearch.study.storage import ERROR, finished

#: The user attribute of a trial that names its recipe.
RECIPE = "recipe"


def optimize(
    study: optuna.Study, space: SearchSpace, judge: Judge, shape: Shape, observer: Observer
) -> None:
    """Run trials until the space's budget is spent.

    Args:
        study: new or re-opened; trials that it holds count.
        space: what is searched, and how.
        judge: merges and scores.
        shape: of the models.
        observer: is told of every trial.
    """
    settings, budget = space.search, space.search.trials
    _enqueue_starts(study, space, shape, observer)
    _record_trials(study, space, judge)
    while len(done := finished(study)) < budget:
        study.sampler = sampler_for(settings.sampler, settings.seed, _next_number(study))
        trial = study.ask()
        start, before = time.perf_counter(), judge.n_documents_scored
        error = score = None
        try:
            candidate = _realize(suggest(space, trial, shape), space, judge)
        except (CandidateError, RecipeError) as failure:
            error = str(failure)
            trial.set_user_attr(ERROR, error)
            study.tell(trial, state=TrialState.FAIL)
        else:
            score = candidate.total
            trial.set_user_attr(RECIPE, candidate.recipe.hash)
            study.tell(trial, score)
        _record_trials(study, space, judge)
        best = max((t.value for t in finished(study) if t.value is not None), default=None)
        observer.trial(
            TrialEvent(
                number=trial.number,
                n_finished=len(done) + 1,
                budget=budget,
                what=_method(trial, space),
                score=score,
                best=best,
                n_documents=judge.n_documents_scored - before,
                seconds=time.perf_counter() - start,
                error=error,
            )
        )


def _next_number(study: optuna.Study) -> int:
    """The number of the trial that `ask` will give: the first that is queued, else a new one."""
    trials = study.get_trials(deepcopy=False)
    return next((t.number for t in trials if t.state == TrialState.WAITING), len(trials))


def _realize(proposal: Recipe | SoupOrder, space: SearchSpace, judge: Judge) -> Candidate:
    """The scored candidate of a proposal: a recipe's, or that of the soup an order leads to."""
    if isinstance(proposal, SoupOrder):
        return greedy_soup(
            judge, space.parents, proposal.names, recipe=partial(soup_of, space)
        ).candidate
    return judge.score(proposal)


def _enqueue_starts(
    study: optuna.Study, space: SearchSpace, shape: Shape, observer: Observer
) -> None:
    points, left_out = starts(space, shape)
    if not study.get_trials(deepcopy=False):
        for line in left_out:
            observer.stage(line)
    for point in points:
        # one that is queued, running or done stays where it is
        study.enqueue_trial(point.params, user_attrs={"label": point.label}, skip_if_exists=True)


def _record_trials(study: optuna.Study, space: SearchSpace, judge: Judge) -> None:
    """Enter the trials that the record lacks: the last one, also where a kill came in between."""
    for trial in finished(study):
        judge.record.add_trial(
            TrialEntry(
                number=trial.number,
                method=_method(trial, space),
                recipe_hash=trial.user_attrs.get(RECIPE),
                score=trial.value,
                error=trial.user_attrs.get(ERROR),
            )
        )


def _method(trial: Trial | FrozenTrial, space: SearchSpace) -> str:
    """What a trial tried: its method, and the name of a starting point."""
    method = str(trial.params.get("method", next(iter(space.methods))))
    label = trial.user_attrs.get("label")
    return f"{method} ({label})" if label else method
