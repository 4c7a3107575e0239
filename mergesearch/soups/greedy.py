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
        CandidateError: not even the first model alone can be scored.
    """

    def score(names: Sequence[str]) -> Candidate:
        return judge.score(soup_recipe([models[name] for name in names]))

    if order is None:
        alone = {name: score([name]).total for name in models}
        order = sorted(models, key=lambda name: -alone[name])
    kept: list[str] = []
    steps: list[SoupStep] = []
    best: Candidate | None = None
    for name in order:
        try:
            candidate = score([*kept, name])
        except CandidateError:
            if not kept:
                raise
            continue  # this mixture has no score: it cannot be what is kept
        better = best is None or candidate.total >= best.total
        steps.append(SoupStep(name, (*kept, name), candidate.total, better))
        if better:
            kept, best = [*kept, name], candidate
        if on_step:
            on_step(steps[-1])
    assert best is not None
    return GreedySoup(tuple(steps), best)


def _n_ingredients(step: SoupStep) -> int:
    return len(step.ingredients)
