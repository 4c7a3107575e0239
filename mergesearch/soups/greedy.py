"""Uniform and greedy model soups."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mergesearch.candidates import Candidate, Judge
from mergesearch.errors import CandidateError
from mergesearch.recipe import ModelRef, Recipe, Slice, Source
from mergesearch.runs import SoupStep


@dataclass(frozen=True)
class GreedySoup:
    """How a greedy soup was made, and what it is."""

    steps: tuple[SoupStep, ...]
    candidate: Candidate

    @property
    def ingredients(self) -> tuple[str, ...]:
        """The names of the models in it."""
        return max((step for step in self.steps if step.kept), key=_n_ingredients).ingredients


def soup_recipe(models: Sequence[ModelRef]) -> Recipe:
    """The plain mean of models (arXiv:2203.05482)."""
    sources = tuple(Source(model=model, parameters={"weight": 1.0}) for model in models)
    return Recipe(merge_method="linear", slices=(Slice(sources=sources),))


def greedy_soup(
    judge: Judge,
    models: Mapping[str, ModelRef],
    order: Sequence[str] | None = None,
    on_step: Callable[[SoupStep], None] | None = None,
) -> GreedySoup:
    """Add one model at a time, and keep it if the score does not fall (arXiv:2203.05482, recipe 1).

    Args:
        judge: scores the soups on the search split.
        models: what may go in, by name.
        order: in which order to try them; None is from the best to the worst alone, the order of
            `models` deciding ties.
        on_step: called after each step.

    Raises:
        CandidateError: none of the models can be scored, not even alone.
    """

    def score(names: Sequence[str]) -> Candidate | None:
        try:
            return judge.score(soup_recipe([models[name] for name in names]))
        except CandidateError:
            return None  # what has no score cannot be what is kept

    if order is None:
        alone = {name: found.total for name in models if (found := score([name]))}
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
