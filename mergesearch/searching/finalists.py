"""After the search: finalists in full, and the winner beside others on held-out."""

from collections.abc import Callable, Sequence
from functools import partial

from mergesearch.errors import CandidateError, MergesearchError
from mergesearch.recipe import Recipe
from mergesearch.runs import LeaderboardRow
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.front import spread
from mergesearch.searching.goals import Goals, Result, distance, goals_of
from mergesearch.searching.history import History
from mergesearch.searching.lanes import Lanes
from mergesearch.searching.observer import Observer
from mergesearch.searching.policies.starts import LAMBDAS
from mergesearch.space import SearchSpace

#: How many of the best candidates are scored in full before one is called the winner.
N_FINALISTS = 5
#: How many where there are several objectives: the whole front, or of a larger one a choice.
N_FRONT = 8


def confirm(
    history: History, space: SearchSpace, candidates: CandidateEvaluator, observer: Observer
) -> Candidate:
    """Find the winner, and score it and what it must beat in full and on held-out.

    The other finalists are scored on held-out last, when nothing is chosen any more: how far their
    search scores hold says how far the winner's can be trusted.

    Of a search for several objectives, what no other beats in all of them goes on the leaderboard
    as the front, and the winner is the one of them with the best score of the suite. A model that
    has no finite score on the whole search split or on held-out is out, and the next comes up.

    Args:
        history: of the study, with at least one scored trial.
        space: what was searched.
        candidates: scores; what it knows costs nothing.
        observer: is told of each model.

    Returns:
        The winner, scored on the whole search split.

    Raises:
        MergesearchError: no trial was scored, or no finalist in full.
    """
    several = len(space.search.objectives) > 1
    if several and len(history.front) > N_FRONT:
        observer.stage(
            f"{N_FRONT} of the {len(history.front)} models of the front, chosen to lie apart, are "
            "scored in full"
        )
    recipes = best_recipes(history, candidates, N_FRONT if several else N_FINALISTS)
    if not recipes:
        raise MergesearchError(
            "every candidate failed, so there is no winner; see the trials' errors"
        )
    lanes, finalists = Lanes(candidates), []
    lanes.ahead(partial(CandidateEvaluator.score, recipe=one, full=True) for one in recipes)
    for number, recipe in enumerate(recipes, start=1):
        observer.stage(f"scoring finalist {number} of {len(recipes)} on the whole search split")
        try:
            finalists.append(candidates.score(recipe, full=True))
        except CandidateError as error:  # finite on the documents of the search, not on all
            observer.stage(f"finalist {number} is out: {error}")
    goals = goals_of(space, candidates, full=True)
    while finalists:
        front, others = split_front(finalists, goals, observer)
        rows = _rows(front if several else front[:1], [*front, *others], goals)
        candidates.record.set_best(rows)
        recipes_of = {row: candidates.record.recipe(row.recipe_hash) for row in rows}
        named = {row: one for row, one in recipes_of.items() if row.role != "finalist"}
        not_chosen = {row: one for row, one in recipes_of.items() if row.role == "finalist"}
        beside = references(space, candidates)
        lanes.ahead(map(_whole, [*named.values(), *beside.values()]))
        out = {row.recipe_hash for row in _without_score(candidates, named, observer)}
        if not out:
            score_beside(candidates, beside, observer)
            if candidates.has_held_out:  # without a score there they keep their rows
                _without_score(candidates, not_chosen, observer, "has no held-out score")
            return front[0]
        finalists = [candidate for candidate in finalists if candidate.recipe.hash not in out]
    raise MergesearchError("no finalist has a finite score on all documents")


def _rows(
    front: Sequence[Candidate], ordered: Sequence[Candidate], goals: Goals
) -> list[LeaderboardRow]:
    """Make the rows of a front, whose first is the winner, and of the other finalists."""
    rows = []
    for i, candidate in enumerate(ordered, start=1):
        role = "winner" if i == 1 else "front" if i <= len(front) else "finalist"
        broken = _result(candidate, goals).broken
        label = role if i == 1 else f"{role} {i}"
        rows.append(LeaderboardRow(label, role, candidate.recipe.hash, broken))
    return rows


def best_recipes(history: History, candidates: CandidateEvaluator, n: int) -> list[Recipe]:
    """Return the recipes of the n best trials, no two with the same tensors.

    Of a front of more than n they are spread over it.
    """
    recipes: dict[str, Recipe] = {}
    leaders = [history.front[i] for i in spread([t.values for t in history.front], n)]
    for trial in [*leaders, *history.ranked()]:
        assert trial.recipe_hash is not None
        digest = candidates.record.digest_of(trial.recipe_hash)
        if digest is not None and digest not in recipes and len(recipes) < n:
            recipes[digest] = candidates.record.recipe(trial.recipe_hash)
    return list(recipes.values())


def split_front(
    finalists: Sequence[Candidate], goals: Goals, observer: Observer
) -> tuple[list[Candidate], list[Candidate]]:
    """Part finalists that none of them dominates from the others; each by its score.

    Those that break a constraint are no part of the front. Where all do, it is what comes nearest.
    """
    pairs = [(_result(candidate, goals), candidate) for candidate in finalists]
    pairs.sort(key=lambda pair: (distance(pair[0].shares), -pair[1].total))
    results, ordered = [result for result, _ in pairs], [candidate for _, candidate in pairs]
    kept = [i for i, result in enumerate(results) if result.feasible]
    if not kept:
        observer.stage(
            "no finalist keeps every constraint on the whole search split; the winner breaks "
            + " and ".join(results[0].broken)
        )
        kept = [0]
    front = [
        i
        for i in kept
        if not any(goals.dominates(results[j].values, results[i].values) for j in kept)
    ]
    others = [i for i in range(len(ordered)) if i not in front]
    return [ordered[i] for i in front], [ordered[i] for i in others]


def references(space: SearchSpace, candidates: CandidateEvaluator) -> dict[LeaderboardRow, Recipe]:
    """List what a winner must beat: base, parents, uniform soup, task arithmetic."""
    recipes: dict[str, tuple[str, Recipe]] = {}
    if space.base is not None:
        recipes["base"] = ("base", space.soup([space.base]))
    for name, ref in space.parents.items():
        recipes[name] = ("parent", space.soup([ref]))
    recipes["uniform soup"] = ("reference", space.soup())
    if space.base is not None and (best := _best_task_arithmetic(space, candidates)):
        scale, recipe = best
        recipes[f"task arithmetic, λ = {scale:g}"] = ("reference", recipe)
    return {
        LeaderboardRow(label, role, recipe.hash): recipe
        for label, (role, recipe) in recipes.items()
    }


def score_in_full(
    candidates: CandidateEvaluator, recipe: Recipe, label: str, observer: Observer
) -> None:
    """Score a model on the whole search split and, where there is one, on held-out."""
    observer.stage(f"scoring {label} in full and on held-out")
    _whole(recipe)(candidates)


def _whole(recipe: Recipe) -> Callable[[CandidateEvaluator], None]:
    """Make the job of scoring a model on all that there is."""

    def score(candidates: CandidateEvaluator) -> None:
        candidates.score(recipe, full=True)
        if candidates.has_held_out:
            candidates.score(recipe, "held_out")

    return score


def score_beside(
    candidates: CandidateEvaluator, others: dict[LeaderboardRow, Recipe], observer: Observer
) -> None:
    """Score models in full and put those that have a score on the leaderboard."""
    out = _without_score(candidates, others, observer)
    for row in others:
        if row not in out:
            candidates.record.add_row(row)


def _without_score(
    candidates: CandidateEvaluator,
    models: dict[LeaderboardRow, Recipe],
    observer: Observer,
    otherwise: str = "is not on the leaderboard",
) -> list[LeaderboardRow]:
    """Score models in full and on held-out, and give those that have no finite score.

    Of these the observer is told `otherwise`.
    """
    Lanes(candidates).ahead(map(_whole, models.values()))
    out = []
    for row, recipe in models.items():
        try:
            score_in_full(candidates, recipe, row.label, observer)
        except CandidateError as error:
            observer.stage(f"{row.label} {otherwise}: {error}")
            out.append(row)
    return out


def _best_task_arithmetic(
    space: SearchSpace, candidates: CandidateEvaluator
) -> tuple[float, Recipe] | None:
    """Find the scale at which plain task arithmetic does best, if any score is finite."""
    recipes = {scale: space.task_arithmetic(scale) for scale in LAMBDAS}
    Lanes(candidates).ahead(
        partial(CandidateEvaluator.score, recipe=recipe) for recipe in recipes.values()
    )
    scored = []
    for scale, recipe in recipes.items():
        try:
            scored.append((candidates.score(recipe).total, scale, recipe))
        except CandidateError:
            continue  # not finite at this scale
    return max(scored, key=lambda item: item[:2])[1:] if scored else None


def _result(candidate: Candidate, goals: Goals) -> Result:
    return goals.result(goals.measured(candidate.recipe, candidate.scores))
