"""The number of models that go into a merge, the fewer the better."""

from mergesearch.objectives import Measured, Objective


def _parents_used(candidate: Measured) -> float:
    recipe = candidate.recipe
    return len(set(recipe.models) - {recipe.base_model})


PARENTS_USED = Objective(
    measure=_parents_used,
    direction="minimize",
    show=lambda value: f"{value:.0f}",
    whole=True,
)
