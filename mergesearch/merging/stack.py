"""Stacks in memory whose parameters are the parents' own tensors, not copies."""

import math
from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mergesearch.merging.conversion import Conversion
from mergesearch.merging.digest import Digest, TensorDigest
from mergesearch.merging.kernel import merge_tensor, read
from mergesearch.merging.plan import Job, Plan
from mergesearch.merging.threads import workers
from mergesearch.methods.formula import plain
from mergesearch.parents import Memo, MemoryPlan, Parents, Reserved
from mergesearch.recipe import ModelRef


class Stacks:
    """Makes models of the parents' tensors, stack after stack (arXiv:2403.13187).

    A tensor that a stack takes as it is, is the parent's own wherever it occurs. One that has to
    change its dtype or its device is converted once, and kept for all stacks. Only what is scaled
    belongs to the one model, and goes with it.

    Args:
        parents: the models of the stacks.
        device: where the stacks run.
    """

    def __init__(self, parents: Parents, device: torch.device) -> None:
        self._parents = parents
        self._device = device
        self._kept = Memo()
        self._parts = Memo()

    def stack_into(self, model: Any, plan: Plan, conversion: Conversion | None = None) -> str:
        """Make a model the stack of a plan; any number of times, one stack after another.

        Nothing may write into such a model, as `fill` does: its tensors are the parents'.

        Args:
            model: of the plan's configuration, such as a `skeleton`; its parameters are replaced
                by others of the same dtypes, and what the last stack alone had is freed.
            plan: of a passthrough recipe.
            conversion: of the plan's tensors to the model's, where it is known; a plain one.

        Returns:
            The hash of the tensors, the same as that of a checkpoint of the recipe.

        Raises:
            InputError: the model has other parameters.
            RecipeError: the parents' tensors are not shaped as the model's.
            CandidateError: a tensor has NaN or infinite entries; the model is then no candidate.
        """
        conversion = conversion or Conversion(model, plan.shapes)
        dtypes = {name: conversion.tensor(name).dtype for name in conversion.plain}

        def shared(job: Job) -> tuple[Job, Tensor, str]:
            return job, *self._tensor(job, dtypes[job.name])

        digest = Digest()
        with workers(self._parents.device) as pool:
            for job, tensor, part in pool.map(shared, plan.jobs):
                owner, _, name = conversion.plain[job.name].rpartition(".")
                # a parameter for each name: one tensor of several layers is several parameters
                parameter = nn.Parameter(tensor, requires_grad=False)
                setattr(model.get_submodule(owner), name, parameter)
                digest.put(job.name, part)
        model.tie_weights()
        return digest.hexdigest()

    def _tensor(self, job: Job, dtype: torch.dtype) -> tuple[Tensor, str]:
        """Take or make a job's tensor, to be computed with in `dtype`, and hash it."""
        if is_scaled(job):
            digest = TensorDigest(job.name, job.dtype, job.shape)
            return self._merged(job, dtype, digest), digest.hexdigest()
        (source,) = job.inputs
        key = (self._parents.key(source.model, source.name), job.dtype)
        kept = self._kept.recall((*key, dtype), lambda: self._as_it_is(job, dtype))
        return kept, self._parts.recall((*key, job.name), lambda: self._part(job))

    def _as_it_is(self, job: Job, dtype: torch.dtype) -> Tensor:
        """Take the parent's own tensor, or convert it where it must be."""
        (source,) = job.inputs
        stored = read(self._parents, source)
        if stored.dtype == job.dtype == dtype and self._parents.device == self._device:
            return stored
        return self._merged(job, dtype)

    def _merged(self, job: Job, dtype: torch.dtype, digest: TensorDigest | None = None) -> Tensor:
        target = torch.empty(job.shape, dtype=dtype, device=self._device)
        merge_tensor(job, 0, self._parents, target, call=plain, digest=digest)
        return target

    def _part(self, job: Job) -> str:
        """Hash a tensor as it is, by its name in the stack."""
        (source,) = job.inputs
        digest = TensorDigest(job.name, job.dtype, job.shape)
        digest.update(self._parents.read(source.model, source.name).to(job.dtype))
        self._parents.release(source.model, source.name)
        return digest.hexdigest()


def is_scaled(job: Job) -> bool:
    """Check whether a passthrough changes what it passes."""
    return bool(job.models) and job.arguments["scale"][0] not in (None, 1)


def own_bytes(plan: Plan, dtype: torch.dtype) -> int:
    """Bound what a stack takes beside the tensors that it shares with all others."""
    return sum(job.n_entries for job in plan.jobs if is_scaled(job)) * dtype.itemsize


def reserve_stacks(
    parents: Parents,
    stacked: Iterable[ModelRef],
    reserved: Reserved,
    dtype: torch.dtype,
    device: torch.device,
) -> MemoryPlan:
    """Reserve as `Parents.reserve` does, with room for what all stacks share.

    Args:
        parents: every model that is open.
        stacked: those whose layers are stacked.
        reserved: what else is going to be allocated, as for `Parents.reserve`.
        dtype: what the stacks compute in.
        device: where they run.

    Raises:
        InputError: the budget is too small even if every model is streamed.
    """
    models, n_bytes = tuple(stacked), -1
    # Models that are not kept must be held all the same, which may leave room for fewer yet.
    while (needed := _shared_bytes(parents, models, dtype, device)) > n_bytes:
        n_bytes = needed
        memory = parents.reserve({**reserved, "tensors of stacks": n_bytes})
    return memory


def _shared_bytes(
    parents: Parents, models: Iterable[ModelRef], dtype: torch.dtype, device: torch.device
) -> int:
    """Bound what stacked models' tensors take beside the models that are kept."""
    sizes: dict[Hashable, int] = {}
    for ref in models:
        kept = parents.residences[ref] == ("host" if parents.device.type == "cpu" else "device")
        for name, spec in parents.specs(ref).items():
            key = parents.key(ref, name)
            is_sum = key[0] == ref
            stored = torch.float32 if is_sum else spec.dtype
            as_it_is = stored == spec.dtype == dtype and parents.device == device
            size = 0 if as_it_is and kept else math.prod(spec.shape) * dtype.itemsize
            sizes[key] = min(size, sizes.get(key, size))
    return sum(sizes.values())
