"""The kernel carries out a plan: it reads, merges in float32 and rounds once."""

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mergesearch.errors import CandidateError
from mergesearch.merging.digest import Digest, TensorDigest
from mergesearch.merging.factors import factors_of
from mergesearch.merging.fuse import call_for
from mergesearch.merging.loading import Load
from mergesearch.merging.plan import Input, Job, Plan
from mergesearch.merging.planning import plan_merge
from mergesearch.merging.threads import workers
from mergesearch.merging.written import Written, source_of
from mergesearch.methods import Formula, Inputs
from mergesearch.methods.executor import BLOCK, Call, Executor
from mergesearch.methods.formula import plain
from mergesearch.methods.inputs import as_rows
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe

# A compiled pass has no temporaries, so that larger blocks, which cost fewer calls, stay in cache.
_FUSED_BLOCK = 4 * BLOCK
# Where a device has its own memory, a block is enough for it to be busy and no more.
_DEVICE_BLOCK = 512 * BLOCK
# Large enough that bringing it from the host is what takes the time.
_BROUGHT_BLOCK = 64 * BLOCK


def merged_tensors(recipe: Recipe, parents: Parents) -> Iterator[tuple[str, Tensor]]:
    """Stream the merged model as (name, tensor), in the order of the layers.

    Tensors have the recipe's output dtype and are on the CPU. No more of them are in memory than
    torch has threads, and the one that is handed out.

    Raises:
        InputError: the recipe cannot be built from these parents (`RecipeError`).
        CandidateError: a merged value is NaN or infinite.
    """
    yield from run(plan_merge(recipe, parents), parents)


def digest_of(recipe: Recipe, parents: Parents) -> str:
    """Return the hash of a recipe's tensors, streamed and not kept.

    The errors are those of `merged_tensors`.
    """
    digest = Digest()
    for name, tensor in merged_tensors(recipe, parents):
        digest.add(name, tensor)
    return digest.hexdigest()


def run(plan: Plan, parents: Parents) -> Iterator[tuple[str, Tensor]]:
    """Stream the tensors of a plan; see `merged_tensors`."""

    def merged(job: Job) -> tuple[str, Tensor]:
        target = torch.empty(job.shape, dtype=job.dtype, device=parents.device)
        merge_tensor(job, plan.seed, parents, target, call=plain)
        return job.name, target.cpu()

    with workers(parents.device) as pool:
        yield from pool.map(merged, plan.jobs)


def write(
    plan: Plan,
    parents: Parents,
    targets: Mapping[str, Tensor],
    loads: Sequence[Load] = (),
    written: Written | None = None,
) -> str:
    """Write a plan's tensors over those of a model, in place.

    Args:
        plan: what is merged.
        parents: where the inputs are read.
        targets: tensors of the jobs' shapes by name, of any float dtype and on any device.
        loads: what becomes of the jobs that have no target, together.
        written: what the model was last written from; tensors that would be the same are left.

    Returns:
        The hash of the merged tensors.

    Raises:
        CandidateError: a merged value is NaN or infinite; the targets are then no candidate.
    """
    call = call_for(parents.device, plan.n_entries)
    written = Written() if written is None else written
    sources = {job.name: source_of(job, plan.seed, _looked_at(job, parents)) for job in plan.jobs}
    new = {name for name, source in sources.items() if not written.holds(name, source)}
    new |= {name for load in loads if load.names & new for name in load.names}
    written.forget(new)
    # so that none is waited for
    largest_first = sorted(plan.jobs, key=lambda job: -job.n_entries)
    todo = [job for job in largest_first if job.name in new]

    def merged(job_and_target: tuple[Job, Tensor]) -> tuple[Job, str]:
        job, target = job_and_target
        digest = TensorDigest(job.name, job.dtype, job.shape)
        merge_tensor(job, plan.seed, parents, target, call=call, digest=digest)
        return job, digest.hexdigest()

    with workers(parents.device) as pool:
        at_once = [(job, targets[job.name]) for job in todo if job.name in targets]
        for job, part in pool.map(merged, at_once):
            written.put(job.name, sources[job.name], part)
        for load in loads:
            jobs = [job for job in todo if job.name in load.names]
            made = [torch.empty(j.shape, dtype=load.dtype, device=load.device) for j in jobs]
            parts = list(pool.map(merged, zip(jobs, made, strict=True)))
            if jobs:
                load.into({job.name: tensor for job, tensor in zip(jobs, made, strict=True)})
            for job, part in parts:
                written.put(job.name, sources[job.name], part)
    return written.digest(plan.jobs)


@torch.no_grad()
def merge_tensor(
    job: Job,
    seed: int,
    parents: Parents,
    target: Tensor,
    *,
    call: Call,
    digest: TensorDigest | None = None,
) -> None:
    """Merge one tensor of the model into `target`, block by block.

    Args:
        job: what to merge and how.
        seed: the recipe's seed, for methods that draw random numbers.
        parents: where the inputs are read.
        target: tensor of the job's shape; what it gets is rounded to the job's dtype.
        call: calls the formula's functions.
        digest: takes the result into account.

    Raises:
        CandidateError: an entry is NaN or infinite.
    """
    if not job.n_entries:
        return
    try:
        inputs = inputs_of(job, seed, parents, call, target.device)
        _merge(job, inputs, parents, target, digest)
    finally:
        release_inputs(job, parents)


def release_inputs(job: Job, parents: Parents) -> None:
    """Let go of the inputs of a job where their models are streamed."""
    for source in job.inputs:
        parents.release(source.model, source.name)


def _merge(
    job: Job, inputs: Inputs, parents: Parents, target: Tensor, digest: TensorDigest | None
) -> None:
    # without a model there is nothing to add to the base
    formula = job.method.formula(inputs, **job.arguments) if job.models else Formula(copy)
    if job.held is None:  # else the result is held first
        formula = replace(formula, function=rounded_to(job.dtype, formula.function))
    out = as_rows(target)
    values = inputs.values(formula)
    for rows, value in values if job.held is None else _held(values, job, inputs, parents):
        if not _is_finite(value):
            raise CandidateError(
                f"the merged tensor {job.name} has NaN or infinite entries; "
                "use smaller weights or a wider dtype"
            )
        out[rows] = value
        if digest is not None:
            digest.update(value)


@cache
def rounded_to(dtype: torch.dtype, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a function give float32 values that a dtype has: the one rounding.

    A part of the function, so that it is compiled with it; one function for each of both, so that
    it is compiled once.
    """
    if dtype == torch.float32:
        return function

    def of_dtype(base: Tensor | None, models: Sequence[Tensor], **constants: Any) -> Tensor:
        return rounded(function(base, models, **constants), dtype)

    return of_dtype


def rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to a dtype's values, as float32."""
    return value.to(dtype).to(torch.float32)


def _held(
    values: Iterator[tuple[slice, Tensor]], job: Job, inputs: Inputs, parents: Parents
) -> Iterator[tuple[slice, Tensor]]:
    """Multiply each input channel's delta by 1 - a (1 - omega), and round.

    AIM (arXiv:2502.02421): a is the base's mean magnitude there, as a part of the layer's largest;
    tensors that are no linear layer's weight stay.
    """
    assert job.held is not None
    source = job.held.base
    magnitude = parents.statistics.read("activation", source.model, source.name)
    if magnitude is None:
        yield from ((rows, rounded(value, job.dtype)) for rows, value in values)
        return
    share = magnitude / magnitude.max().clamp(min=torch.finfo(magnitude.dtype).tiny)
    left = (1 - share * (1 - job.held.omega)).to(inputs.device)
    by_row = inputs.find_transposed()
    base = as_rows(read(parents, source))
    for rows, value in values:
        origin = base[rows].to(value.device).float()
        part = left[rows, None] if by_row else left
        yield rows, rounded(origin + (value - origin) * part, job.dtype)


def copy(base: None, models: Sequence[Tensor]) -> Tensor:
    """Return the one input."""
    return models[0]


def inputs_of(job: Job, seed: int, parents: Parents, call: Call, beside: torch.device) -> Inputs:
    """Read the inputs of a job; whoever does releases them (`release_inputs`).

    Args:
        job: what to merge.
        seed: the recipe's.
        parents: where they are read.
        call: calls formulas.
        beside: where the result goes; of several devices that merge it is the one.
    """
    device = beside if beside in parents.devices else parents.device
    sources = list(job.models)
    base: Tensor | None = None
    if job.base is not None and (job.method.base == "first" or not sources):
        sources.insert(0, job.base)
    elif job.base is not None:
        base = read(parents, job.base)
    return Inputs(
        None if base is None else as_rows(base),
        _Models(parents, sources),
        name=job.name,
        n_dims=len(job.shape),
        keys=_keys(seed, job.name, len(sources), device) if job.method.random else None,
        flat_range=job.flat_range,
        ids=(job.base if base is not None else None, *_ids(job, sources, parents)),
        statistics=lambda kind, i: parents.statistics.read(kind, sources[i].model, sources[i].name),
        executor=Executor(
            call=call,
            memory=lambda key, compute: parents.memo.recall((key, device), compute),
            block=block_entries(parents),
            heavy_block=block_entries(parents, compiled=call is not plain),
            device=device if len(parents.devices) > 1 else None,
        ),
        find_transposed=lambda: is_transposed(job, parents),
        find_factors=lambda: factors_of(job, parents),
    )


def is_transposed(job: Job, parents: Parents) -> bool:
    """Tell if a job's rows are inputs of a linear layer, and its columns outputs."""
    source = job.inputs[0]
    return parents.is_transposed(source.model, source.name)


def _looked_at(job: Job, parents: Parents) -> list[str]:
    """Name the statistics that a job looks at."""
    keys = [key for source in job.models for key in _keys_of(source, job, parents)]
    held = job.held and parents.statistics.key("activation", job.held.base.model)
    return [*keys, held] if held else keys


def _ids(job: Job, sources: Sequence[Input], parents: Parents) -> list[Hashable]:
    """Name models by all that what is recalled of them follows from."""
    return [(s, *keys) if (keys := _keys_of(s, job, parents)) else s for s in sources]


def _keys_of(source: Input, job: Job, parents: Parents) -> list[str]:
    """Name the statistics of one model that a job's method looks at."""
    return [parents.statistics.key(kind, source.model) for kind in job.method.statistics]


class _Models(Sequence[Tensor]):
    """Models' tensors as rows, each read when it is first looked at: factors may do."""

    def __init__(self, parents: Parents, sources: Sequence[Input]) -> None:
        self._n = len(sources)
        self._tensor = cache(lambda i: as_rows(read(parents, sources[i])))

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: Any) -> Any:
        return [*self][i] if isinstance(i, slice) else self._tensor(range(self._n)[i])


def block_entries(parents: Parents, *, compiled: bool = False) -> int:
    """Choose the entries of a block, for a compiled formula or another."""
    if len(parents.devices) > 1:
        return _BROUGHT_BLOCK
    if parents.device.type != "cpu":
        return _DEVICE_BLOCK
    return _FUSED_BLOCK if compiled else BLOCK


def read(parents: Parents, source: Input) -> Tensor:
    """Read a tensor of a parent, and check once that all of it is finite.

    Raises:
        CandidateError: an entry is NaN or infinite.
    """
    tensor = parents.read(source.model, source.name)
    if not parents.memo.recall(("finite", source), lambda: _is_finite(tensor)):
        raise CandidateError(
            f"{source.model}: {source.name} has NaN or infinite entries; "
            "leave the model out, or repair it"
        )
    return tensor


def _is_finite(tensor: Tensor) -> bool:
    """Tell if all entries are finite, by their sum unless that is too large itself."""
    if not tensor.numel() or math.isfinite(tensor.sum()):
        return True
    return all(math.isfinite(bound) for bound in torch.aminmax(tensor))


def _keys(seed: int, name: str, n: int, device: torch.device) -> Tensor:
    """Derive random keys for each model's part in a tensor, from the seed alone.

    Returns:
        Two numbers of 32 bits for each model: int32 (n, 2).
    """
    words = []
    for index in range(n):
        digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
        pair = (digest[:4], digest[4:8])
        words.append([int.from_bytes(word, "big", signed=True) for word in pair])
    return torch.tensor(words, dtype=torch.int32, device=device)
