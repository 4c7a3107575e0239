"""After the search: the best candidates in full, the winner once on held-out, beside the others."""

from collections.abc import Sequence

from mergesearch.errors import CandidateError, MergesearchError
from mergesearch.recipe import Recipe, Slice, Source
from mergesearch.runs import Row
from mergesearch.searching.baselines import soup_of
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.front import spread
from mergesearch.searching.goals import Goals, distance
from mergesearch.searching.history import History
from mergesearch.searching.observer import Observer
from mergesearch.searching.policies.starts import LAMBDAS
from mergesearch.searching.study import RECIPE
from mergesearch.space import SearchSpace

#: How many of the best candidates are scored in full before one is called the winner.
N_FINALISTS = 5
#: How many where there are several objectives: the whole front, or of a larger one a choice.
N_FRONT = 8


def confirm(
    history: History, space: SearchSpace, judge: CandidateEvaluator, observer: Observer
) -> Candidate:
    """Find the winner, and score it and what it must beat in full and on held-out.

    Of a search for several objectives, what no other beats in all of them goes on the leaderboard
    as the front, and the winner is the one of them with the best score of the suite. A model that
    has no finite score on the whole search split or on held-out is out, and the next comes up.

    Args:
        history: of the study, with at least one scored trial.
        space: what was searched.
        judge: scores; what it knows costs nothing.
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
    recipes = best_recipes(history, judge, N_FRONT if several else N_FINALISTS)
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
    goals = Goals(space, judge, full=True)
    while finalists:
        front, others = split_front(finalists, goals, observer)
        rows = _rows(front if several else front[:1], [*front, *others], goals)
        judge.record.set_best(rows)
        named = {
            row: judge.record.recipe(row.recipe_hash) for row in rows if row.role != "finalist"
        }
        out = {row.recipe_hash for row in _without_score(judge, named, observer)}
        if not out:
            judge_beside(judge, references(space, judge), observer)
            return front[0]
        finalists = [candidate for candidate in finalists if candidate.recipe.hash not in out]
    raise MergesearchError("no finalist has a finite score on all documents")


def _rows(front: Sequence[Candidate], ordered: Sequence[Candidate], goals: Goals) -> list[Row]:
    """The leaderboard's rows of a front, whose first is the winner, and of the other finalists."""
    rows = []
    for i, candidate in enumerate(ordered, start=1):
        role = "winner" if i == 1 else "front" if i <= len(front) else "finalist"
        broken = goals.result(candidate.scores, goals.size(candidate.recipe)).broken
        label = role if i == 1 else f"{role} {i}"
        rows.append(Row(label, role, candidate.recipe.hash, broken))
    return rows


def best_recipes(history: History, judge: CandidateEvaluator, n: int) -> list[Recipe]:
    """The recipes of the n best trials, no two with the same tensors.

    Of a front of more than n they are spread over it.
    """
    found: dict[str, Recipe] = {}
    leaders = [history.front[i] for i in spread([t.values for t in history.front], n)]
    for trial in [*leaders, *history.ranked()]:
        recipe_hash = trial.user_attrs[RECIPE]
        digest = judge.record.digest_of(recipe_hash)
        if digest is not None and digest not in found and len(found) < n:
            found[digest] = judge.record.recipe(recipe_hash)
    return list(found.values())


def split_front(
    finalists: Sequence[Candidate], goals: Goals, observer: Observer
) -> tuple[list[Candidate], list[Candidate]]:
    """Finalists that none of them dominates, and the others; each by the score of the suite.

    Those that break a constraint are no part of the front. Where all do, it is what comes nearest.
    """
    found = [(goals.result(c.scores, goals.size(c.recipe)), c) for c in finalists]
    found.sort(key=lambda pair: (distance(pair[0].shares), -pair[1].total))
    results, ordered = [result for result, _ in found], [candidate for _, candidate in found]
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


def references(space: SearchSpace, judge: CandidateEvaluator) -> dict[Row, Recipe]:
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


def judge_in_full(
    judge: CandidateEvaluator, recipe: Recipe, label: str, observer: Observer
) -> None:
    """Score a model on the whole search split and, where there is one, on held-out."""
    observer.stage(f"scoring {label} in full and on held-out")
    judge.score(recipe, full=True)
    if judge.has_held_out:
        judge.score(recipe, "held_out")


def judge_beside(judge: CandidateEvaluator, others: dict[Row, Recipe], observer: Observer) -> None:
    """Score models in full and put them on the leaderboard, but for those that have no score."""
    out = _without_score(judge, others, observer)
    for row in others:
        if row not in out:
            judge.record.add_row(row)


def _without_score(
    judge: CandidateEvaluator, models: dict[Row, Recipe], observer: Observer
) -> list[Row]:
    """Score models in full and on held-out, and give those that have no finite score."""
    out = []
    for row, recipe in models.items():
        try:
            judge_in_full(judge, recipe, row.label, observer)
        except CandidateError as error:
            observer.stage(f"{row.label} is not on the leaderboard: {error}")
            out.append(row)
    return out


def _best_task_arithmetic(
    space: SearchSpace, judge: CandidateEvaluator
) -> tuple[float, Recipe] | None:
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
