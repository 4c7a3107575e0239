"""The subject of learning: a recipe whose numbers are learned, planned once."""

from dataclasses import dataclass

from mergesearch.learning.coefficients import Coefficients
from mergesearch.merging import Plan, Routes, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.space import Granularity, Learned, SearchSpace


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

    def coefficients(self, learned: Learned, granularity: Granularity) -> Coefficients:
        """List the numbers that are learned, as one vector.

        Args:
            learned: says what is.
            granularity: of the space, for blocks.

        Raises:
            InputError: no tensor differs between the models, so that there is nothing to learn.
        """
        return Coefficients(self.template, self.plan, self.routes, learned, granularity)
