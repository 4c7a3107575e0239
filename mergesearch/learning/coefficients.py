"""The numbers that are learned, as one vector: from jobs, and to a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.learning.places import EVERYTHING, Place, Places
from mergesearch.merging import Gradients, Plan, Routes, language_depth
from mergesearch.methods import Parameter
from mergesearch.parents import tower_depths
from mergesearch.recipe import Conditional, ModelRef, Recipe, Setting
from mergesearch.space import Granularity, Learned

#: Digits kept of a coefficient: finer steps change no score, and recipes stay readable.
DECIMALS = 4


@dataclass(frozen=True)
class Coefficient:
    """One number of a recipe, by what it belongs to."""

    parameter: Parameter
    #: None where the parameter is one for all models.
    parent: ModelRef | None
    place: Place


class Coefficients:
    """The learned numbers of a recipe, as one vector.

    Args:
        template: a recipe of whole models with every learned parameter at its start.
        plan: of the template.
        routes: of the plan; what no coefficient changes has none.
        learned: says what is learned.
        granularity: of the space, for blocks.

    Raises:
        InputError: no tensor differs between the models, so that there is nothing to learn; or no
            filters tell apart what has coefficients of its own.
    """

    def __init__(
        self,
        template: Recipe,
        plan: Plan,
        routes: Routes,
        learned: Learned,
        granularity: Granularity,
    ) -> None:
        self._template = template
        self._learned = learned
        constant = set(routes.constant)
        changing = [job for job in plan.jobs if job.name not in constant]
        if not changing:
            raise InputError(
                "the models have no tensor that differs, so there is nothing to learn; check that "
                "they are not copies of one"
            )
        depths = tower_depths(job.name for job in plan.jobs)
        self._places = Places.of(
            [job.name for job in changing], depths, language_depth(plan), learned, granularity
        )
        index: dict[Coefficient, int] = {}
        #: Of each job and argument the indices of its coefficients, (models,) or ().
        self._taken: dict[str, dict[str, Tensor]] = {}
        for job in changing:
            place = self._places.place[job.name]
            models = [source.model for source in job.models]
            for parameter in learned.searched:
                owners = models if parameter.per_model else [None]
                wanted = [Coefficient(parameter, owner, place) for owner in owners]
                found = [index.setdefault(coefficient, len(index)) for coefficient in wanted]
                taken = torch.tensor(found if parameter.per_model else found[0])
                self._taken.setdefault(job.name, {})[parameter.argument] = taken
        self.all: tuple[Coefficient, ...] = tuple(index)
        self._index = index
        #: The vector at the start, float64 (coefficients,).
        self.start = self._of_each(learned.start)
        self._low = self._of_each(lambda parameter: learned.range(parameter).low)
        self._high = self._of_each(lambda parameter: learned.range(parameter).high)

    def __len__(self) -> int:
        return len(self.all)

    def arguments(self, values: Tensor) -> dict[str, dict[str, list[float] | float]]:
        """Give each job's learned arguments, by the names of job and argument."""
        return {
            job: {argument: values[taken].tolist() for argument, taken in of.items()}
            for job, of in self._taken.items()
        }

    def gradient(self, of_arguments: Gradients) -> Tensor:
        """Sum up the gradients of arguments by coefficient, float64 (coefficients,)."""
        gradient = torch.zeros(len(self), dtype=torch.float64)
        for job, taken_by in self._taken.items():
            for argument, value in of_arguments.get(job, {}).items():
                if argument in taken_by:
                    gradient.index_add_(0, taken_by[argument].reshape(-1), value.reshape(-1))
        return gradient

    def clamped(self, values: Tensor) -> Tensor:
        """Bring a vector into the ranges of its parameters."""
        return values.clamp(self._low, self._high)

    def changed(self, values: Tensor, pull: float, scales: Mapping[ModelRef, float]) -> Tensor:
        """Pull a vector towards its means, scale it and bring it into its ranges.

        Args:
            values: (coefficients,).
            pull: 0 leaves each where it is, 1 puts it at the mean of its parent's.
            scales: factors by parent; what is of no parent takes their mean.
        """
        common = sum(scales.values()) / len(scales) if scales else 1.0
        factors = [common if c.parent is None else scales.get(c.parent, 1.0) for c in self.all]
        pulled = values + pull * (self.means(values) - values)
        return self.clamped(pulled * torch.tensor(factors, dtype=values.dtype))

    def means(self, values: Tensor) -> Tensor:
        """Give each coefficient the mean of its parent's of the same parameter."""
        means = torch.zeros_like(values)
        for members in self._members.values():
            means[members] = values[members].mean()
        return means

    def recipe(self, values: Tensor) -> Recipe:
        """Write a vector as a recipe in mergekit's terms, rounded to four digits.

        A group of tensors is a filter, and its layers are a list of one value each.
        """
        rounded = values.double().round(decimals=DECIMALS)
        (part,) = self._template.slices
        sources = tuple(
            source.model_copy(update={"parameters": self._settings(rounded, source.model)})
            for source in part.sources
        )
        learned = {parameter.name for parameter in self._learned.searched}
        others = {k: v for k, v in self._template.parameters.items() if k not in learned}
        return Recipe.model_validate(
            {
                **dict(self._template),
                "parameters": {**others, **self._settings(rounded, None)},
                "slices": (part.model_copy(update={"sources": sources}),),
            }
        )

    def _settings(self, values: Tensor, parent: ModelRef | None) -> dict[str, Setting]:
        """Make the settings of one parent, or of what all share."""
        return {
            parameter.name: self._setting(values, parameter, parent)
            for parameter in self._learned.searched
            if parameter.per_model == (parent is not None)
        }

    def _setting(self, values: Tensor, parameter: Parameter, parent: ModelRef | None) -> Setting:
        settings = {
            group: self._over_layers(values, parameter, parent, group)
            for group in self._places.spans
        }
        if EVERYTHING not in settings:
            # of what no coefficient changes, the mean says the most of the others
            mean = values[self._members[parameter.name, parent]].mean()
            settings[EVERYTHING] = round(float(mean), DECIMALS)
        if len(settings) == 1:
            return settings[EVERYTHING]
        return tuple(Conditional(filter=k or None, value=v) for k, v in settings.items())

    def _over_layers(
        self, values: Tensor, parameter: Parameter, parent: ModelRef | None, group: str
    ) -> float | tuple[float, ...]:
        """One value, or one a layer."""
        found: list[float] = []
        for span in self._places.spans[group]:
            i = self._index.get(Coefficient(parameter, parent, Place(group, span)))
            if i is not None:
                found.append(round(float(values[i]), DECIMALS))
            else:  # a layer without tensors of the group: any value will do
                found.append(found[-1] if found else 0.0)
        return found[0] if len(set(found)) == 1 else tuple(found)

    def _of_each(self, value: Callable[[Parameter], float]) -> Tensor:
        of_each = {parameter: value(parameter) for parameter in self._learned.searched}
        return torch.tensor([of_each[c.parameter] for c in self.all], dtype=torch.float64)

    @cached_property
    def _members(self) -> Mapping[tuple[str, ModelRef | None], Tensor]:
        """The indices of coefficients, by parameter and parent."""
        members: dict[tuple[str, ModelRef | None], list[int]] = {}
        for i, coefficient in enumerate(self.all):
            members.setdefault((coefficient.parameter.name, coefficient.parent), []).append(i)
        return {owner: torch.tensor(found) for owner, found in members.items()}
