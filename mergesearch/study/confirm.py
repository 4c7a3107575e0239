"""After the search: the best candidates in full, the winner once on held-out, beside the others."""

import optuna
from optuna.trial import TrialState

from mergesearch.candidates import Candidate, Judge
from mergesearch.errors import CandidateError, MergesearchError
from mergesearch.recipe import Recipe, Slice, Source
from mergesearch.runs import Row
from mergesearch.space import LAMBDAS, SearchSpace
from mergesearch.study.observer import Observer
from mergesearch.study.optimize import RECIPE
from mergesearch.study.soups import soup_of

#: How many of the best candidates are scored in full before one is called the winner.
N_FINALISTS = 3


def confirm(study: optuna.Study, space: SearchSpace, judge: Judge, observer: Observer) -> Candidate:
    """Find the winner, and score it and what it must beat in full and on held-out.

    Args:
        study: with at least one scored trial.
        space: what was searched.
        judge: scores; what it knows costs nothing.
        observer: is told of each model.

    Returns:
        The winner, scored on the whole search split.

    Raises:
        MergesearchError: no trial was scored.
    """
    recipes = best_recipes(study, judge, N_FINALISTS)
    if not recipes:
        raise MergesearchError(
            "every candidate failed, so there is no winner; see the trials' errors"
        )
    finalists = []
    for number, recipe in enumerate(recipes, start=1):
        observer.stage(f"scoring finalist {number} of {len(recipes)} on the whole search split")
        try:
            finalists.append(judge.score(recipe, full=True))
        except CandidateError as error:  # finite on the documents of the search, not on all
            observer.stage(f"finalist {number} is out: {error}")
    if not finalists:
        raise MergesearchError("no finalist has a finite score on the whole search split")
    winner, *others = sorted(finalists, key=lambda candidate: -candidate.total)
    judge.record.add_row(Row("winner", "winner", winner.recipe.hash))
    for place, candidate in enumerate(others, start=2):
        judge.record.add_row(Row(f"finalist {place}", "finalist", candidate.recipe.hash))
    judge_in_full(judge, winner.recipe, "winner", observer)
    judge_beside(judge, references(space, judge), observer)
    return winner


def best_recipes(study: optuna.Study, judge: Judge, n: int) -> list[Recipe]:
    """The recipes of the n best trials, no two with the same tensors."""
    trials = study.get_trials(states=(TrialState.COMPLETE,))
    found: dict[str, Recipe] = {}
    for trial in sorted(trials, key=lambda t: -(t.value or 0.0)):
        recipe_hash = trial.user_attrs[RECIPE]
        digest = judge.record.digest_of(recipe_hash)
        if digest is not None and digest not in found and len(found) < n:
            found[digest] = judge.record.recipe(recipe_hash)
    return list(found.values())


def references(space: SearchSpace, judge: Judge) -> dict[Row, Recipe]:
    """What a winner must beat: the base, each parent, the uniform soup, plain task arithmetic."""
    recipes: dict[str, tuple[str, Recipe]] = {}
    if space.base is not None:
        recipes["base"] = ("base", soup_of(space, [space.base]))
    for name, ref in space.parents.items():
        recipes[name] = ("parent", soup_of(space, [ref]))
    recipes["uniform soup"] = ("reference", soup_of(space, list(space.parents.values())))
    if space.base is not None and (best := _best_task_arithmetic(space, judge)):
        scale, recipe = best
        recipes[f"task arithmetic, λ = {scale:g}"] = ("reference", recipe)
    return {Row(label, role, recipe.hash): recipe for label, (role, recipe) in recipes.items()}


def judge_in_full(judge: Judge, recipe: Recipe, label: str, observer: Observer) -> None:
    """Score a model on the whole search split and, where there is one, on held-out."""
    observer.stage(f"scoring {label} in full and on held-out")
    judge.score(recipe, full=True)
    if judge.has_held_out:
        judge.score(recipe, "held_out")


def judge_beside(judge: Judge, others: dict[Row, Recipe], observer: Observer) -> None:
    """Score models in full and put them on the leaderboard, but for those that have no score."""
    for row, recipe in others.items():
        try:
            judge_in_full(judge, recipe, row.label, observer)
        except CandidateError as error:
            observer.stage(f"{row.label} is not on the leaderboard: {error}")
        else:
            judge.record.add_row(row)


def _best_task_arithmetic(space: SearchSpace, judge: Judge) -> tuple[float, Recipe] | None:
    """Plain task arithmetic at the scale that does best on the search split, if any is finite."""
    scored = []
    for scale in LAMBDAS:
        recipe = task_arithmetic_recipe(space, scale)
        try:
            scored.append((judge.score(recipe).total, scale, recipe))
        except CandidateError:
            continue  # not finite at this scale
    return max(scored, key=lambda item: item[:2])[1:] if scored else None


def task_arithmetic_recipe(space: SearchSpace, scale: float) -> Recipe:
    """Every parent's task vector at one scale."""
    sources = tuple(
        Source(model=ref, parameters={"weight": scale}) for ref in space.parents.values()
    )
    return Recipe(
        merge_method="task_arithmetic",
        base_model=space.base,
        slices=(Slice(sources=sources),),
        tokenizer_source=space.tokenizer_source,
    )
