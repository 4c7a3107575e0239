"""The models of a search: opened, planned for every method, and their memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import torch

from mergesearch.engines import Cost
from mergesearch.errors import InputError
from mergesearch.merging import (
    Plan,
    Spread,
    conversion_of,
    merging_bytes,
    own_bytes,
    plan_merge,
    reserve_stacks,
    skeleton,
)
from mergesearch.parents import MemoryPlan, Parents, Reserved
from mergesearch.recipe import Recipe
from mergesearch.runtime import Runtime, merges_on
from mergesearch.searching.shape import shape_of, with_router
from mergesearch.space import SearchSpace, Shape, largest_stack, suggest

#: The line of the memory plan for what happens in turn to a candidate.
WORKING = "merging or scoring"


@dataclass(frozen=True)
class Models:
    """The parents of a space, open, and plans of what a search makes of them."""

    #: Its granularity as the models' files have it.
    space: SearchSpace
    parents: Parents
    shape: Shape
    #: The uniform soup, of whose size every merged candidate is.
    soup: Plan
    #: The deepest stack, if there are stacks.
    deep: tuple[Plan, ...]
    #: One of each method.
    methods: tuple[Plan, ...]

    def working_bytes(self, costs: Sequence[Cost], dtype: torch.dtype) -> int:
        """Bound what a candidate takes as it is merged, and then scored."""
        plans = (*self.methods, self.soup, *self.deep)
        merging = max(merging_bytes(plan, self.parents, streamed=False) for plan in plans)
        merging += conversion_of(self.soup).n_bytes(dtype)
        return max([merging, *(cost.n_bytes for cost in costs)])

    def spread(self, working: int) -> Spread | None:
        """Give the live model what a candidate's work leaves of several devices."""
        return Spread.beside(self.parents, {"merging": 0, WORKING: working})

    def live_bytes(self, dtype: torch.dtype, spread: Spread | None) -> int | list[int]:
        """Bound what the live model takes, on each device where it lies on several.

        Raises:
            InputError: the devices are too small.
        """
        if spread is not None:
            meta = torch.device("meta")
            sizes = [
                spread.n_bytes(skeleton(plan, meta, dtype)) for plan in (self.soup, *self.deep)
            ]
            return [max(of_device) for of_device in zip(*sizes, strict=True)]
        plain = conversion_of(self.soup).is_plain
        deep = [
            # tensors of parents are shared where they are parameters as they are
            own_bytes(plan, dtype) if plain else plan.n_entries * dtype.itemsize
            for plan in self.deep
        ]
        return max([self.soup.n_entries * dtype.itemsize, *deep])

    def reserve(self, reserved: Reserved, dtype: torch.dtype, device: torch.device) -> MemoryPlan:
        """Decide which parents are kept beside what is reserved; see `Parents.reserve`.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        if self.deep and len(self.parents.devices) == 1:
            stacked = self.space.parents.values()
            return reserve_stacks(self.parents, stacked, reserved, dtype, device)
        return self.parents.reserve(reserved)


def open_models(
    space: SearchSpace, runtime: Runtime, devices: Sequence[torch.device], *, weights: bool = True
) -> Models:
    """Open a space's models, and plan a candidate of each method.

    Whatever would fail all trials of a method is an error here.

    Args:
        space: what is searched.
        runtime: the budgets, and what is allowed.
        devices: that a candidate lies on.
        weights: open the files of the weights.

    Raises:
        InputError: with what is wrong first.
    """
    parents = Parents(
        space.models,
        vocabulary=space.tokenizer_source or "error",
        base=space.base,
        device=merges_on(devices[0]),
        others=devices[1:],
        memory_budget=runtime.memory_budget,
        device_memory=runtime.device_memory,
        weights=weights,
        allow_mismatch=runtime.allow_mismatch,
    )
    if parents.alignment.changes and space.tokenizer_source is None:
        raise InputError(
            "all candidates must have one vocabulary, and an adapter adds rows to its base's; set "
            "tokenizer_source to base, union or a model"
        )
    space = space.model_copy(update={"granularity": with_router(space.granularity, parents)})
    shape = shape_of(space, parents)
    methods = []
    for name in space.methods:
        alone = space.model_copy(update={"methods": {name: space.methods[name]}})
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        candidate = suggest(alone, trial, shape)
        if isinstance(candidate, Recipe):
            methods.append(plan_merge(candidate, parents))
    soup = plan_merge(space.soup(), parents)
    for ref in parents.models:  # each is scored by itself, as it generates
        plan_merge(space.soup([ref]), parents)
    return Models(space, parents, shape, soup, _deepest(space, parents, shape), tuple(methods))


def _deepest(space: SearchSpace, parents: Parents, shape: Shape) -> tuple[Plan, ...]:
    """Plan the deepest stack of a space, if it has stacks."""
    if space.stacking is None:
        return ()
    recipe = largest_stack(space.stacking, space.parents, shape.n_layers, shape.writers)
    return (plan_merge(recipe, parents),)
