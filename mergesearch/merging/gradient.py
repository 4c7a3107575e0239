"""Gradients with respect to the numbers of a recipe, through the merge itself.

A loss L of the merged model has dL/dc = sum_j <dL/dW_j, dW_j/dc>. The first factor comes out of the
backward pass, tensor by tensor; the second is the method's own formula (`methods.pull_back`). No
more than one tensor's gradient is there at a time.

Where W = W0 + sum(c_i B_i A_i) is made of LoRA adapters (arXiv:2106.09685), a layer computes
W0 x + sum(c_i B_i (A_i x)) instead, and the gradient of c_i needs no gradient of a weight.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mergesearch.errors import RecipeError
from mergesearch.merging.conversion import Conversion
from mergesearch.merging.factors import factors_of
from mergesearch.merging.kernel import inputs_of, release_inputs, write
from mergesearch.merging.low_rank import LowRank, put_beside
from mergesearch.merging.plan import Job, Plan
from mergesearch.methods.derivative import combination, pull_back, pull_back_combination
from mergesearch.methods.formula import plain
from mergesearch.parents import Group, Parents

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Of each job the gradient of each argument: () or (models,), float64 on the CPU.
Gradients = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Routes:
    """The way in which each tensor of a plan takes part, by the jobs' names."""

    #: Computed as low-rank deltas beside the base's own weight.
    low_rank: tuple[str, ...]
    #: Merged as a whole, its gradient taken back through the method's formula.
    dense: tuple[str, ...]
    #: The base's own in every model, so that no coefficient changes it.
    constant: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, parents: Parents) -> "Routes":
        """Find the cheapest way for each job.

        Raises:
            RecipeError: the method has no differentiable parameter.
        """
        names: dict[str, list[str]] = {"low_rank": [], "dense": [], "constant": []}
        for job in plan.jobs:
            names[_route(job, parents)].append(job.name)
        return cls(**{route: tuple(of) for route, of in names.items()})

    def with_groups(self, groups: Iterable[Group]) -> "Routes":
        """Merge as a whole what becomes parameters together, if any of it changes."""
        constant = set(self.constant)
        dense = {n for group in groups if group.sources.keys() - constant for n in group.sources}
        rest = ([n for n in of if n not in dense] for of in (self.low_rank, self.constant))
        low_rank, same = (tuple(of) for of in rest)
        return Routes(low_rank, tuple(dict.fromkeys((*self.dense, *sorted(dense)))), same)


class LearnableModel:
    """A model in memory whose loss has a gradient with respect to a plan's arguments.

    The model is anyone's of the plan's shape, such as a live model's; until `close` its weights are
    not to be written by others, and afterwards they are no recipe's.

    >>> import torch
    >>> from mergesearch import open_parents, plan_merge, read_recipe
    >>> from mergesearch.merging import LearnableModel, build
    >>> parents = open_parents("models/base", {"one": "models/one"}, device="cpu")
    >>> text = "{merge_method: task_arithmetic, base_model: base, models: [{model: one}], %s}"
    >>> plan = plan_merge(read_recipe(text % "parameters: {weight: 0.5}"), parents)
    >>> with LearnableModel.over(build(plan, torch.device("cpu")), plan, parents) as learnable:
    ...     learnable.model(input_ids=torch.tensor([[4, 5, 6]])).logits.sum().backward()
    ...     gradients = learnable.gradients()
    >>> gradients["model.layers.0.mlp.up_proj.weight"]["weight"].shape
    torch.Size([1])

    Args:
        model: of the plan's configuration, with memory for every parameter.
        plan: what the model becomes; its arguments may change later (`become`).
        parents: where the inputs are read, now and in each backward pass.
        conversion: of the plan's tensors to the model's, where it is known.

    Raises:
        RecipeError: the method has no differentiable parameter.
        InputError: the model has other parameters than the plan.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        plan: Plan,
        parents: Parents,
        conversion: Conversion | None = None,
    ) -> None:
        self.model = model
        self._conversion = conversion or Conversion(model, plan.shapes)
        self.routes = Routes.of(plan, parents).with_groups(self._conversion.groups)
        self._parents = parents
        self._plan = plan
        self._jobs = {job.name: job for job in plan.jobs}
        #: Leaves: the coefficients of the models in each low-rank layer, float32 (models,).
        self._leaves: dict[str, Tensor] = {}
        self._gradients: dict[str, dict[str, Tensor]] = {}
        #: Give the model back what it was, one change each.
        self._undo: list[Callable[[], None]] = []
        self._write_base()
        for name in self.routes.low_rank:
            self._add_low_rank(self._jobs[name])
        for name in self.routes.dense:
            if name in self._conversion.plain:
                self._hook(self._conversion.tensor(name), partial(self._take_back, name))
        for group in self._conversion.groups:
            if not group.sources.keys() <= set(self.routes.constant):
                collected: dict[str, Tensor] = {}
                for name in group.parameters:
                    hook = partial(self._collect, group, name, collected)
                    self._hook(self._conversion.made(name), hook)
        self.become(plan)

    @classmethod
    @contextmanager
    def over(
        cls,
        model: "PreTrainedModel",
        plan: Plan,
        parents: Parents,
        conversion: Conversion | None = None,
    ) -> Iterator["LearnableModel"]:
        """Make a model learnable until the block ends; see the class."""
        learnable = cls(model, plan, parents, conversion)
        try:
            yield learnable
        finally:
            learnable.close()

    def become(self, plan: Plan) -> None:
        """Take the arguments of a plan that is the first one but for them.

        Raises:
            CandidateError: a merged value is NaN or infinite.
        """
        self._jobs = {job.name: job for job in plan.jobs}
        self._gradients = {}
        for name in self.routes.low_rank:
            leaf = self._leaves[name]
            job = self._jobs[name]
            leaf.data.copy_(combination(job.method, len(job.models), job.arguments)[1:])
            leaf.grad = None
        dense = [self._jobs[name] for name in self.routes.dense]
        if dense:
            self._write(replace(plan, jobs=tuple(dense)))

    def gradients(self) -> Gradients:
        """Collect what backward passes gave since `become`."""
        found = {name: dict(of) for name, of in self._gradients.items()}
        for name in self.routes.low_rank:
            if (gradient := self._leaves[name].grad) is not None:
                job = self._jobs[name]
                found[name] = pull_back_combination(
                    job.method, len(job.models), job.arguments, gradient.cpu()
                )
        return found

    def close(self) -> None:
        """Make the model's layers what they were, its parameters without gradients."""
        for undo in self._undo:
            undo()
        self._undo.clear()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False).grad = None

    def _write_base(self) -> None:
        """Write what stays: the base's own weights below low-rank deltas, and constants."""
        names = {*self.routes.low_rank, *self.routes.constant}
        jobs = tuple(
            replace(job, models=(), arguments={}) for job in self._plan.jobs if job.name in names
        )
        if jobs:
            self._write(replace(self._plan, jobs=jobs))

    def _write(self, plan: Plan) -> None:
        names = [job.name for job in plan.jobs if job.name in self._conversion.plain]
        targets = {name: self._conversion.tensor(name).data for name in names}
        write(plan, self._parents, targets, self._conversion.loads())

    def _hook(self, parameter: Tensor, take_back: Callable[[Tensor], None]) -> None:
        """Have a parameter's gradient taken back as soon as it is there."""
        handle = parameter.requires_grad_().register_post_accumulate_grad_hook(take_back)
        self._undo.append(handle.remove)

    def _add_low_rank(self, job: Job) -> None:
        """Let a linear layer compute W0 x + sum(c_i B_i A_i x)."""
        module = self.model.get_submodule(self._conversion.plain[job.name].rpartition(".")[0])
        weight = self._conversion.tensor(job.name)
        low_rank = LowRank.of(job, self._parents, weight)
        leaf = torch.zeros(len(job.models), device=weight.device, requires_grad=True)
        self._leaves[job.name] = leaf
        self._undo.append(put_beside(module, low_rank, leaf))

    def _take_back(self, name: str, parameter: Tensor) -> None:
        """Turn a weight's gradient into those of its job's arguments, and let go of it."""
        self._pull_back(name, _taken(parameter))

    def _collect(
        self, group: Group, name: str, collected: dict[str, Tensor], parameter: Tensor
    ) -> None:
        """Wait for the gradients of all parameters of a group, and take them back."""
        collected[name] = _taken(parameter)
        if collected.keys() == group.parameters.keys():
            for source, gradient in group.take_back(collected).items():
                self._pull_back(source, gradient)
            collected.clear()

    def _pull_back(self, name: str, gradient: Tensor) -> None:
        job = self._jobs[name]
        inputs = inputs_of(job, self._plan.seed, self._parents, plain, gradient.device)
        try:
            found = pull_back(job.method, inputs, job.arguments, gradient.to(inputs.device))
        finally:
            release_inputs(job, self._parents)
        before = self._gradients.setdefault(name, {})
        for argument, value in found.items():
            before[argument] = before.get(argument, 0) + value.cpu()


def _taken(parameter: Tensor) -> Tensor:
    """Take a parameter's gradient, so that it has none."""
    gradient, parameter.grad = parameter.grad, None
    assert gradient is not None
    return gradient


def total_rank(plan: Plan, parents: Parents) -> int:
    """Give the largest rank of the deltas beside one layer, of all models together."""
    ranks = [sum(len(part.a) for part in factors_of(job, parents) or ()) for job in plan.jobs]
    return max(ranks, default=0)


def _route(job: Job, parents: Parents) -> str:
    """Name the field of `Routes` that a job belongs to."""
    if not job.method.differentiable:
        raise RecipeError(f"{job.name}: its method has no parameter that is differentiable")
    if not job.models:
        return "constant"
    if job.base is None or not job.n_entries:
        return "dense" if job.n_entries else "constant"
    base = parents.key(job.base.model, job.base.name)
    changed = [source for source in job.models if parents.key(source.model, source.name) != base]
    if not changed and job.method.base == "required":
        return "constant"
    adapted = job.method.combination and factors_of(job, parents) is not None
    return "low_rank" if adapted else "dense"
