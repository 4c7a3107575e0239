"""The subject of learning: a recipe whose numbers are learned, planned once."""

from dataclasses import dataclass

from mergesearch.merging import Plan, Routes, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.space import Learned, SearchSpace


@dataclass(frozen=True)
class Subject:
    """A recipe with every learned parameter at its start, and how its model is made."""

    template: Recipe
    plan: Plan
    routes: Routes

    @classmethod
    def of(cls, space: SearchSpace, learned: Learned, parents: Parents) -> "Subject":
        """Plan what a space's models are merged to.

        Raises:
            RecipeError: it cannot be built from these parents.
        """
        seed = space.search.seed
        template = learned.template(space.base, space.parents, space.tokenizer_source, seed)
        template = space.with_towers(template)
        plan = plan_merge(template, parents)
        return cls(template, plan, Routes.of(plan, parents))
