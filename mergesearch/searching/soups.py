"""Uniform and greedy model soups."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mergesearch.errors import CandidateError
from mergesearch.recipe import ModelRef, Recipe, soup_recipe
from mergesearch.runs import SoupStep
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.lanes import Lanes


@dataclass(frozen=True)
class GreedySoup:
    """A greedy soup, and the steps in which it was made.

    >>> from mergesearch.runs import SoupStep
    >>> steps = (SoupStep("a", ("a",), 0.5, kept=True), SoupStep("b", ("a", "b"), 0.4, kept=False))
    >>> GreedySoup(steps, candidate=None).ingredients
    ('a',)
    """

    steps: tuple[SoupStep, ...]
    candidate: Candidate

    @property
    def ingredients(self) -> tuple[str, ...]:
        """The names of the models in it."""
        return max((step for step in self.steps if step.kept), key=_n_ingredients).ingredients


def greedy_soup(
    candidates: CandidateEvaluator,
    models: Mapping[str, ModelRef],
    order: Sequence[str] | None = None,
    recipe: Callable[[Sequence[ModelRef]], Recipe] = soup_recipe,
    on_step: Callable[[SoupStep], None] | None = None,
) -> GreedySoup:
    """Add a model at a time; keep it if the score does not fall (arXiv:2203.05482).

    Args:
        candidates: scores the soups on the search split.
        models: what may go in, by name.
        order: in which order to try them; None is from the best to the worst alone, the order of
            `models` deciding ties.
        recipe: makes the recipe of a soup from its ingredients.
        on_step: called after each step.

    Raises:
        CandidateError: none of the models can be scored, not even alone.
    """

    def score(names: Sequence[str]) -> Candidate | None:
        try:
            return candidates.score(recipe([models[name] for name in names]))
        except CandidateError:
            return None  # what has no score cannot be what is kept

    if order is None:
        Lanes(candidates).ahead(
            partial(CandidateEvaluator.score, recipe=recipe([models[name]])) for name in models
        )
        alone = {name: soup.total for name in models if (soup := score([name]))}
        order = sorted(alone, key=lambda name: -alone[name])
    kept: list[str] = []
    steps: list[SoupStep] = []
    best: Candidate | None = None
    for name in order:
        candidate = score([*kept, name])
        if candidate is None:
            continue
        better = best is None or candidate.total >= best.total
        steps.append(SoupStep(name, (*kept, name), candidate.total, better))
        if better:
            kept, best = [*kept, name], candidate
        if on_step:
            on_step(steps[-1])
    if best is None:
        raise CandidateError("no model can be scored, not even alone")
    return GreedySoup(tuple(steps), best)


def _n_ingredients(step: SoupStep) -> int:
    return len(step.ingredients)
