"""Any method in Core Space: LoRA adapters merged as small matrices."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods.factors import CoreSpace, factorised
from mergesearch.methods.formula import ByRow, Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.subspace import (
    add_direction,
    finite_task_vectors,
    mean_direction,
    not_finite,
)
from mergesearch.methods.table import METHODS
from mergesearch.methods.tensors import apply


def in_core_space(name: str) -> Callable[..., Formula]:
    """Make a method that merges cores as another one merges whole matrices.

    W0 + lambda U M Vᵀ (arXiv:2509.17786, section 4): M is what the other method makes of the
    models' cores beside a base of zeros, all weights and its lambda one. As in the paper, its sizes
    are the cores': of directions that TSV-M keeps, of entries that TIES trims. Vectors, embeddings
    and output heads take the mean delta. A model whose factors are not known is factorised by its
    singular vectors; recipes have none, by the row's `needs_adapters`.

    Args:
        name: a row of the table with a base and a lambda.
    """

    def formula(inputs: Inputs, *, lambda_: float = 1.0, **arguments: Any) -> Formula:
        if not inputs.is_matrix or not inputs.n_entries:
            return mean_direction(inputs, lambda_)

        def compute() -> Tensor:
            space = inputs.recall("core space", lambda: _space(inputs))
            if space is None:
                return not_finite(inputs)
            return space.outside(_merged(name, space, inputs, arguments)).to(inputs.device)

        key = f"{name} in core space"
        direction = compute() if arguments else inputs.recall(key, compute)
        constants = {"direction": ByRow(direction), "scale": numbers(lambda_, inputs)}
        return Formula(add_direction, constants, of_base=True)

    return formula


def _space(inputs: Inputs) -> CoreSpace | None:
    """Find the space of the models' factors; None where a task vector is not finite."""
    if (factors := inputs.factors) is not None:
        return CoreSpace.of(factors)
    deltas = finite_task_vectors(inputs)
    return None if deltas is None else CoreSpace.of([factorised(delta) for delta in deltas])


def _merged(name: str, space: CoreSpace, inputs: Inputs, arguments: dict[str, Any]) -> Tensor:
    method, cores = METHODS[name], space.cores
    given = {**arguments, "lambda_": 1.0}
    if method.parameter("weight"):
        given["weight"] = [1.0] * len(cores)
    zeros = torch.zeros_like(cores[0])
    return apply(method, zeros, cores, keys=inputs.keys, name=inputs.name, **given)


core_tsv_m = in_core_space("tsv_m")
core_iso_c = in_core_space("iso_c")
core_ties = in_core_space("ties")
