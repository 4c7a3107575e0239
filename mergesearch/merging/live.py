"""The live model: one model in memory, which becomes candidate after candidate."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import nn

from mergesearch.logs import quiet
from mergesearch.merging.conversion import Conversion
from mergesearch.merging.generation import generation_config, generation_mark
from mergesearch.merging.gradient import LearnableModel
from mergesearch.merging.kernel import write
from mergesearch.merging.loadable import check_shared
from mergesearch.merging.plan import Plan
from mergesearch.merging.planning import plan_merge
from mergesearch.merging.skeleton import allocate, skeleton
from mergesearch.merging.spread import Spread
from mergesearch.merging.stack import Stacks
from mergesearch.merging.written import Written
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def merge_into(model: nn.Module, recipe: Recipe, parents: Parents) -> str:
    """Make a model in memory the recipe's, in place.

    Any number of times, one recipe after another.

    Args:
        model: its parameters are named and shaped as the merged tensors, of any float dtype. They
            get the merged values rounded to the recipe's dtype, so that what is scored is what a
            checkpoint of the recipe would hold.
        recipe: what to merge.
        parents: the recipe's models, opened once (`open_parents`).

    Returns:
        The hash of the merged tensors, the same as that of a checkpoint of the recipe.

    Raises:
        InputError: the recipe cannot be built from these parents, or the model is of another shape.
        CandidateError: a merged value is NaN or infinite; the model is then no candidate.
    """
    return fill(model, plan_merge(recipe, parents), parents)


def fill(
    model: nn.Module,
    plan: Plan,
    parents: Parents,
    conversion: Conversion | None = None,
    written: Written | None = None,
) -> str:
    """Do what `merge_into` does, for a recipe that is planned already.

    Args:
        model: see `merge_into`.
        plan: of the recipe.
        parents: its models.
        conversion: of the plan's tensors to the model's, where it is known.
        written: what the model was last written from, if that is known.
    """
    conversion = conversion or Conversion(model, plan.shapes)
    return write(plan, parents, conversion.targets(), conversion.loads(), written)


class LiveModel:
    """One transformers model in memory that becomes recipe after recipe.

    Merged weights are written over those of the recipe before, but for tensors that are the same in
    both; so nobody else may write into the model. A stack takes the parents' own tensors
    (`Stacks`), where the parents are kept for further merges. The model is built anew only where a
    recipe needs another shape, and the one before is freed first.

    >>> import torch
    >>> from mergesearch import LiveModel, open_parents, read_recipe
    >>> parents = open_parents("models/base", {"one": "models/one"}, device="cpu")
    >>> live = LiveModel(parents, torch.device("cpu"))
    >>> text = "{merge_method: linear, models: [{model: %s}], parameters: {weight: 1}}"
    >>> digests = [live.become(read_recipe(text % name)) for name in ("one", "base", "one")]
    >>> digests[0] == digests[2] == live.digest != digests[1]
    True
    >>> live.model.num_parameters() == live.plan.n_entries
    True

    Args:
        parents: every model that a recipe may name.
        device: where the model runs.
        dtype: what it computes in; None means float32 on the CPU and the first recipe's own dtype
            elsewhere.
        spread: the devices where it runs, if they are several, `device` the first of them; then
            the parents are to be opened for the same ones.
    """

    def __init__(
        self,
        parents: Parents,
        device: torch.device,
        dtype: torch.dtype | None = None,
        spread: Spread | None = None,
    ) -> None:
        self._parents = parents
        self._device = device
        self._dtype = dtype
        self._spread = spread
        self._stacks = Stacks(parents, device)
        self._model: PreTrainedModel | None = None
        self._conversion: Conversion | None = None
        self._written = Written()
        #: What the model can become without being built anew.
        self._shape: object = None
        self._plan: Plan | None = None
        self._digest: str | None = None

    def become(self, recipe: Recipe) -> str:
        """Make the model the recipe's.

        Returns:
            The hash of its tensors, the same as that of a checkpoint of the recipe; with a mark
            behind it where it generates otherwise than the first of the parents.

        Raises:
            RecipeError: the recipe cannot be built from these parents.
            InputError: it names a model that is none of them, or transformers cannot build it.
            CandidateError: a merged value is NaN or infinite; the model is then no recipe's.
        """
        self._digest = None  # whatever happens, the model is no longer what it was
        self._plan = plan = plan_merge(recipe, self._parents)
        # parents that are opened for one merge have no tensors for the next to share, and those of
        # a model over several devices are on none of them
        stacked = recipe.merge_method == "passthrough" and self._parents.keep and not self._spread
        # never the same for both: into a stack, whose tensors are the parents', nothing is written
        shape = dict(plan.config) if stacked else plan.shapes
        model, conversion = self._of_shape(plan, shape, stacked=stacked)
        if plan.is_stack:
            check_shared(model, plan)
        if stacked and conversion.is_plain:
            digest = self._stacks.stack_into(model, plan, conversion)
        else:
            digest = fill(model, plan, self._parents, conversion, self._written)
        with quiet():  # of settings that do not go together
            model.generation_config = generation_config(plan)
            self._digest = digest + generation_mark(plan, self._parents)
        return self._digest

    def learnable(self, plan: Plan) -> AbstractContextManager[LearnableModel]:
        """Make the model learnable until a block ends; then it is no recipe's.

        Args:
            plan: of a recipe that is no stack.

        Raises:
            RecipeError: the plan's method has no differentiable parameter.
        """
        self._digest = None
        model, conversion = self._of_shape(plan, plan.shapes, stacked=False)
        self._written = Written()  # learning writes for itself
        return LearnableModel.over(model, plan, self._parents, conversion)

    def overwrite(self, plan: Plan) -> None:
        """Write some of a plan's tensors over those that it holds; then it is no recipe's.

        Args:
            plan: of some tensors, of the shape of the recipe that it held last.

        Raises:
            CandidateError: a merged value is NaN or infinite.
        """
        assert self._conversion is not None, "a model is overwritten once there is one"
        self._digest = None
        self._written = Written()  # of which nothing is known to stay
        write(plan, self._parents, self._conversion.targets(), self._conversion.loads())

    @property
    def stored_names(self) -> Mapping[str, str]:
        """The names in a checkpoint of the parameters that are tensors there.

        Raises:
            RuntimeError: there is no model yet.
        """
        if self._conversion is None:
            raise _no_recipe()
        return {parameter: name for name, parameter in self._conversion.plain.items()}

    def _of_shape(
        self, plan: Plan, shape: object, *, stacked: bool
    ) -> tuple["PreTrainedModel", Conversion]:
        """Take the model, built anew where the plan needs another shape."""
        if self._model is None or self._conversion is None or shape != self._shape:
            self._model = self._conversion = None  # memory is free before the next takes some
            self._written = Written()
            self._model = skeleton(plan, self._device, self._dtype)
            self._conversion = Conversion(self._model, plan.shapes)
            if not (stacked and self._conversion.is_plain):
                allocate(self._model, self._device, self._spread)
            self._shape = shape
        return self._model, self._conversion

    @property
    def digest(self) -> str | None:
        """The hash that `become` gave last; None while it holds no recipe's."""
        return self._digest

    @property
    def plan(self) -> Plan:
        """The plan of the recipe that it holds.

        Raises:
            RuntimeError: it holds none.
        """
        if self._plan is None or self._digest is None:
            raise _no_recipe()
        return self._plan

    @property
    def model(self) -> "PreTrainedModel":
        """The transformers model of the recipe that it holds.

        Raises:
            RuntimeError: it holds none.
        """
        if self._model is None or self._digest is None:
            raise _no_recipe()
        return self._model


def _no_recipe() -> RuntimeError:
    return RuntimeError("the live model holds no recipe; call become(recipe) first")
