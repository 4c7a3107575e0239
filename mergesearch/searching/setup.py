"""The setup of a search: its models and tasks open, a space's errors said first."""

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import optuna
import torch

from mergesearch.engines import Cost
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.merging import (
    Plan,
    compute_dtype,
    merging_bytes,
    model_config,
    n_layers,
    own_bytes,
    plan_merge,
    reserve_stacks,
)
from mergesearch.parents import MemoryPlan, Parents, layer_of, tokenizer_of
from mergesearch.recipe import Recipe
from mergesearch.runtime import Runtime
from mergesearch.searching.goals import check_goals
from mergesearch.space import SearchSpace, Shape, largest_stack, residual_filters, suggest
from mergesearch.tasks import Suite

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class SearchSetup:
    """A space whose models and tasks are open.

    >>> from pathlib import Path
    >>> from mergesearch import SearchSpace
    >>> from mergesearch.searching import prepare
    >>> setup = prepare(SearchSpace.load(Path("space.yaml")))
    >>> [task.id.task for task in setup.evaluator.tasks()]
    ['first', 'second']
    """

    space: SearchSpace
    suite: Suite
    parents: Parents
    tokenizer: "PreTrainedTokenizerBase"
    evaluator: Evaluator
    shape: Shape
    #: The uniform soup, of whose size every merged candidate is.
    soup: Plan
    #: That candidates compute in.
    dtype: torch.dtype
    #: What merging and scoring hold where, the live model included.
    memory: MemoryPlan
    #: What scoring one candidate on the search split takes.
    scoring: Cost

    def with_budget(self, **limits: int | float | None) -> "SearchSetup":
        """Return the same with another budget.

        Args:
            limits: trials, documents or minutes.
        """
        settings = self.space.search.model_copy(update=limits)
        return replace(self, space=self.space.model_copy(update={"search": settings}))


def prepare(
    space: SearchSpace,
    runtime: Runtime = Runtime(),  # noqa: B008  frozen
) -> SearchSetup:
    """Open a space's models and build its tasks.

    Only headers of the models are read. A candidate of each method is planned, so that whatever
    would fail all trials of a method stops the run here.

    Raises:
        InputError: with what is wrong first.
    """
    device = runtime.torch_device
    suite = space.load_suite()
    vocabulary = space.tokenizer_source or "error"
    parents = Parents(
        space.models,
        vocabulary=vocabulary,
        base=space.base,
        device=runtime.merge_device,
        memory_budget=runtime.memory_budget,
    )
    shape = _shape(space, parents)
    plans = []
    for name in space.methods:
        alone = space.model_copy(update={"methods": {name: space.methods[name]}})
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        candidate = suggest(alone, trial, shape)
        if isinstance(candidate, Recipe):
            plans.append(plan_merge(candidate, parents))
    soup = plan_merge(space.soup(), parents)
    tokenizer = tokenizer_of(parents)
    evaluator = Evaluator(suite, tokenizer, runtime)
    check_goals(space, evaluator)
    dtype = runtime.torch_dtype or compute_dtype(soup, device)
    deep = _largest(space, parents, shape)
    plans += [soup, *deep]
    # built before what the process holds is measured
    costs = [
        evaluator.cost(model_config(plan), dtype, device, split)
        for split in ("search", *(["held_out"] if suite.held_out else []))
        for plan in (soup, *deep)
    ]
    merging = max(merging_bytes(plan, parents, streamed=False) for plan in plans)
    live = [soup.n_entries * dtype.itemsize, *(own_bytes(plan, dtype) for plan in deep)]
    reserved = {
        "live model": max(live),
        # a candidate is merged, and then scored
        "merging or scoring": max(merging, *(cost.n_bytes for cost in costs)),
    }
    if deep:
        memory = reserve_stacks(parents, space.parents.values(), reserved, dtype, device)
    else:
        memory = parents.reserve(reserved)
    return SearchSetup(
        space, suite, parents, tokenizer, evaluator, shape, soup, dtype, memory, costs[0]
    )


@dataclass(frozen=True)
class Estimate:
    """The cost of a search in time."""

    n_parameters: int
    n_documents: int
    n_tokens: int
    #: Seconds for one candidate, scored on the search split.
    seconds_per_candidate: float


def estimate(setup: SearchSetup, device: torch.device) -> Estimate:
    """Estimate a search's time, from tasks' tokens and the device's present speed."""
    n_parameters = setup.soup.n_entries
    tasks, n_tokens = setup.evaluator.tasks("search"), setup.scoring.n_tokens
    per_second = _flops_per_second(device, setup.dtype)
    return Estimate(
        n_parameters=n_parameters,
        n_documents=sum(task.n_documents for task in tasks),
        n_tokens=n_tokens,
        seconds_per_candidate=2 * n_parameters * n_tokens / per_second,
    )


def _flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the device on a matrix product of the size of a small model's."""
    a, b = (torch.ones(1024, 1024, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(4):
        start = _now(device)
        a @ b
        seconds.append(_now(device) - start)
    return 2 * 1024**3 / min(seconds[1:])


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


def _largest(space: SearchSpace, parents: Parents, shape: Shape) -> list[Plan]:
    """Plan the deepest stack of a space, if it has stacks."""
    if space.stacking is None:
        return []
    recipe = largest_stack(space.stacking, space.parents, shape.n_layers, shape.writers)
    return [plan_merge(recipe, parents)]


def _shape(space: SearchSpace, parents: Parents) -> Shape:
    """Describe the models to the space, whose granularity is checked against them."""
    depth, granularity = n_layers(parents, space.models[0]), space.granularity
    for key in ("blocks", "layers_per_block"):
        if (value := getattr(granularity, key)) is not None and value > depth:
            raise InputError(
                f"granularity.{key} must be at most the models' {depth} layers, got {value}"
            )
    if space.stacking is not None:
        space.stacking.check(depth)
    names = list(parents.specs(space.models[0]))
    outside = set()
    for group in granularity.groups:
        members = [name for name in names if group in name]
        if not members:
            parts = sorted({part for name in names for part in _parts(name)})
            raise InputError(
                f"granularity.groups: no tensor's name contains {group!r}; "
                f"parts of names are {', '.join(parts)}"
            )
        if all(layer_of(name) is None for name in members):
            outside.add(group)
    scaled = space.stacking is not None and space.stacking.scale is not None
    return Shape(depth, frozenset(outside), residual_filters(names) if scaled else ())


def _parts(name: str) -> list[str]:
    """List what a group may be called after: a module in a layer, or beside them."""
    parts = name.split(".")
    return parts[3:4] if layer_of(name) is not None else parts[-2:-1]
