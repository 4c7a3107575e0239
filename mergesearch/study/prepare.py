"""Everything that can be wrong with a space, found before a weight is read."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
import torch

from mergesearch.candidates import tokenizer_of
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator, Suite, load_suite
from mergesearch.merging import Plan, compute_dtype, merging_bytes, n_layers, plan
from mergesearch.parents import MemoryPlan, Parents, layer_of, merges_on
from mergesearch.recipe import Recipe
from mergesearch.space import SearchSpace, suggest
from mergesearch.study.soups import soup_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mergesearch.evaluation import BuiltTask


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Bench:
    """A space whose models and tasks are open."""

    space: SearchSpace
    suite: Suite
    parents: Parents
    tokenizer: "PreTrainedTokenizerBase"
    evaluator: Evaluator
    n_layers: int
    #: The merged model, as every candidate shapes it.
    shape: Plan
    #: What merging holds where, the live model included.
    memory: MemoryPlan


def prepare(
    space: SearchSpace,
    *,
    device: torch.device = _CPU,
    batch_size: int = 16,
    memory_budget: int | None = None,
) -> Bench:
    """Open a space's models and build its tasks.

    Only headers of the models are read. A candidate of each method is planned, so that whatever
    would fail all trials of a method stops the run here.

    Raises:
        InputError: with what is wrong first.
    """
    suite = load_suite(space.suite)
    vocabulary = space.tokenizer_source or "error"
    parents = Parents(
        space.models,
        vocabulary=vocabulary,
        base=space.base,
        device=merges_on(device),
        memory_budget=memory_budget,
    )
    depth = n_layers(parents, space.models[0])
    _check_granularity(space, parents, depth)
    plans = []
    for name in space.methods:
        alone = space.model_copy(update={"methods": {name: space.methods[name]}})
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        candidate = suggest(alone, trial, depth)
        if isinstance(candidate, Recipe):
            plans.append(plan(candidate, parents))
    shape = plan(soup_of(space, list(space.parents.values())), parents)
    tokenizer = tokenizer_of(parents)
    evaluator = Evaluator(suite, tokenizer, batch_size=batch_size)
    evaluator.tasks()  # built before what the process holds is measured
    memory = parents.reserve(
        {
            "live model": shape.n_entries * compute_dtype(shape, device).itemsize,
            "merging": max(
                merging_bytes(work, parents, streamed=False) for work in (*plans, shape)
            ),
        }
    )
    return Bench(space, suite, parents, tokenizer, evaluator, depth, shape, memory)


@dataclass(frozen=True)
class Estimate:
    """What a search would take."""

    n_parameters: int
    n_documents: int
    n_tokens: int
    #: Seconds for one candidate, scored on the search split.
    seconds_per_candidate: float


def estimate(bench: Bench, device: torch.device) -> Estimate:
    """Time of a search, from the tasks' tokens and the device's speed measured now."""
    n_parameters = bench.shape.n_entries
    tasks = bench.evaluator.tasks("search")
    n_tokens = sum(_n_tokens(task, bench.tokenizer) for task in tasks)
    per_second = _flops_per_second(device, compute_dtype(bench.shape, device))
    return Estimate(
        n_parameters=n_parameters,
        n_documents=sum(task.n_documents for task in tasks),
        n_tokens=n_tokens,
        seconds_per_candidate=2 * n_parameters * n_tokens / per_second,
    )


def _n_tokens(task: "BuiltTask", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Tokens the model reads or writes for a task; choices share their context."""
    texts = {request.args[0] for request in task.requests}
    written = 0
    continuations = []
    for request in task.requests:
        for argument in request.args[1:]:
            if isinstance(argument, str):
                continuations.append(argument)
            else:
                written += argument.get("max_gen_toks", 256)
    encoded = tokenizer([*texts, *continuations], add_special_tokens=False)["input_ids"]
    return written + sum(len(ids) for ids in encoded)


def _flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """What the device reaches on a matrix product of the size of a small model's."""
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


def _check_granularity(space: SearchSpace, parents: Parents, depth: int) -> None:
    granularity = space.granularity
    if granularity.blocks > depth:
        raise InputError(
            f"granularity.blocks must be at most the models' {depth} layers, "
            f"got {granularity.blocks}"
        )
    names = list(parents.specs(space.models[0]))
    for group in granularity.groups:
        if not any(group in name for name in names):
            parts = sorted({p for n in names if layer_of(n) is not None for p in n.split(".")[3:4]})
            raise InputError(
                f"granularity.groups: no tensor's name contains {group!r}; "
                f"parts of names are {', '.join(parts)}"
            )
