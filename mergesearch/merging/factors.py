"""The factors of a job's task vectors, where LoRA adapters are merged."""

import math

import torch

from mergesearch.errors import CandidateError, RecipeError
from mergesearch.merging.plan import Input, Job
from mergesearch.methods import Factors
from mergesearch.methods.declare import is_matrix
from mergesearch.parents import Parents


def check_adapters(job: Job, parents: Parents) -> None:
    """Refuse a job of a method that merges adapters alone, where a model is none.

    Raises:
        RecipeError: a matrix of a model is not the base's plus one product.
    """

    def is_adapter(source: Input) -> bool:
        return parents.memo.recall(
            ("adapter", job.base, source), lambda: model_factors(job, source, parents) is not None
        )

    if not (job.method.needs_adapters and is_matrix(job.name, len(job.shape))):
        return
    for source in job.models:
        if not is_adapter(source):
            what = "is none" if source.model.lora is None else f"changes {source.name} otherwise"
            raise RecipeError(
                "a method in core space merges plain LoRA adapters of the base (base+adapter), but "
                f"{source.model} {what}; take the method without core_"
            )


def factors_of(job: Job, parents: Parents) -> tuple[Factors, ...] | None:
    """Give the task vectors of a job's models as products of low rank.

    Returns:
        For each model its factors, on the CPU, of rank zero where its tensor is the base's; None
        where the job has no base, or a tensor comes from the base's in another way than by adding
        one product (arXiv:2106.09685).

    Raises:
        CandidateError: an entry of a factor is NaN or infinite.
    """
    found = [model_factors(job, source, parents) for source in job.models]
    return None if None in found else tuple(part for part in found if part is not None)


def model_factors(job: Job, source: Input, parents: Parents) -> Factors | None:
    """Give the factors of one of a job's models, as `factors_of` does."""
    base = job.base
    if base is None or base.model.lora is not None:
        return None
    if (source.model.model, source.name) != (base.model.model, base.name):
        return None
    if parents.key(source.model, source.name) == parents.key(base.model, base.name):
        rows, columns = math.prod(job.shape[:-1]), math.prod(job.shape[-1:])
        return Factors(torch.zeros(rows, 0), torch.zeros(0, columns))
    found = parents.factors(source.model, source.name)
    if found is None:
        return None
    if not all(bool(torch.isfinite(part).all()) for part in found):
        raise CandidateError(
            f"{source.model}: the adapter's factors of {source.name} have NaN or infinite entries; "
            "leave the model out, or repair it"
        )
    return Factors(b=found[1], a=found[0])
