"""The norms of task vectors, of whole models."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.merging.kernel import inputs_of, release_inputs
from mergesearch.merging.plan import Job, Plan
from mergesearch.merging.threads import workers
from mergesearch.methods import Formula
from mergesearch.methods.formula import plain
from mergesearch.parents import Parents


def task_vector_norms(plan: Plan, parents: Parents) -> tuple[float, ...]:
    """Measure how far each of a plan's models lies from its base, over all tensors.

    Args:
        plan: of a method of task vectors that merges the same models in every tensor.
        parents: where they are read; adapters are measured by their factors.
    """

    def squares_of(job: Job) -> Tensor:
        inputs = inputs_of(job, plan.seed, parents, plain, parents.device)
        try:
            if inputs.factors is None:
                return inputs.sums(Formula(_squares))
            # |b a|^2 = <bᵀb, a aᵀ>
            parts = [(f.b.T @ f.b).double() * (f.a @ f.a.T) for f in inputs.factors]
            return torch.stack([part.sum() for part in parts])
        finally:
            release_inputs(job, parents)

    with workers(parents.device) as pool:
        found = list(pool.map(squares_of, [job for job in plan.jobs if job.models]))
    return tuple(math.sqrt(square) for square in torch.stack(found).sum(0).tolist())


def _squares(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """T_i T_i, entry by entry: (n, rows, columns)."""
    return torch.stack([(model - base).square() for model in models])
