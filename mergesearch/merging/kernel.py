"""Running a plan: read, merge in float32, round once."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from mergesearch.errors import CandidateError
from mergesearch.merging.plan import Input, Job, Plan, plan
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe


def merged_tensors(recipe: Recipe, parents: Parents) -> Iterator[tuple[str, Tensor]]:
    """The merged model as a stream of (name, tensor), one tensor in memory at a time.

    Tensors have the recipe's output dtype and come in the order of the layers.

    Raises:
        InputError: the recipe cannot be built from these parents (`RecipeError`).
        CandidateError: a merged value is NaN or infinite.
    """
    yield from run(plan(recipe, parents), recipe, parents)


def run(work: Plan, recipe: Recipe, parents: Parents) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a plan; see `merged_tensors`."""
    for job in work.jobs:
        yield job.name, merge_tensor(job, recipe.seed, parents)


@torch.no_grad()
def merge_tensor(job: Job, seed: int, parents: Parents) -> Tensor:
    """One tensor of the merged model.

    Args:
        job: what to merge and how.
        seed: the recipe's seed, for methods that draw random numbers.
        parents: where the inputs are read.

    Returns:
        Tensor of the job's shape and dtype, on the CPU.

    Raises:
        CandidateError: an entry is NaN or infinite.
    """
    arguments = dict(job.arguments)
    if job.base is not None:
        arguments["base"] = _read(parents, job.base)
        if not job.models:  # nothing to add to the base
            return arguments["base"].to(job.dtype)
    if job.method.random:
        arguments["generators"] = [
            _generator(seed, job.name, index) for index in range(len(job.models))
        ]
    models = [_read(parents, source) for source in job.models]
    merged: Tensor = job.method.merge(models=models, **arguments)
    rounded = merged.to(job.dtype)  # the one rounding
    if not bool(torch.isfinite(rounded).all()):
        raise CandidateError(
            f"the merged tensor {job.name} has NaN or infinite entries; "
            "look for them in the models, or use smaller weights or a wider dtype"
        )
    return rounded


def _read(parents: Parents, source: Input) -> Tensor:
    return parents.read(source.model, source.name).float()


def _generator(seed: int, name: str, index: int) -> torch.Generator:
    """The random numbers of one model's part in one tensor, whatever is merged before it."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    # torch takes seeds of 64 bits with a sign
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
