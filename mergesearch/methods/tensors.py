"""A merge method on tensors at hand, without recipe or files."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods.declare import Method
from mergesearch.methods.executor import Executor
from mergesearch.methods.inputs import Inputs, Statistics, no_statistics


def apply(
    method: Method,
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    keys: Tensor | None = None,
    name: str = "",
    flat_range: tuple[int, int] = (0, 1),
    statistics: Statistics = no_statistics,
    executor: Executor | None = None,
    **arguments: Any,
) -> Tensor:
    """Merge tensors of one shape.

        >>> import torch
        >>> from mergesearch.methods import METHODS, apply
        >>> base, one, two = torch.zeros(3), torch.tensor([2.0, 0, 1]), torch.tensor([4.0, 2, -1])
        >>> apply(METHODS["task_arithmetic"], base, [one, two], weight=[0.5, 0.5])
        tensor([3., 1., 0.])

    Args:
        method: a row of the table.
        base: W0 of any shape S, or None where the method has no base.
        models: n tensors of shape S, of any float dtype.
        keys: int32 of shape (n, 2), for a method that draws random numbers.
        name: the tensor's in the merged model.
        flat_range: its first entry in the flattened model, and the entries of that model.
        statistics: gives what the method looks at beside tensors; see `Inputs.statistic`.
        executor: runs the formulas, if not block by block as they stand.
        arguments: the method's; those left out have the table's defaults.

    Returns:
        float32 tensor of shape S.
    """
    inputs = as_inputs(
        method,
        base,
        models,
        keys=keys,
        name=name,
        flat_range=flat_range,
        statistics=statistics,
        executor=executor or Executor(),
    )
    out = torch.empty(inputs.shape, dtype=torch.float32, device=inputs.device)
    if inputs.n_entries:
        formula = method.formula(inputs, **method.arguments(len(models), arguments))
        for rows, value in inputs.values(formula):
            out[rows] = value
    return out.view(models[0].shape)


def as_inputs(method: Method, base: Tensor | None, models: Sequence[Tensor], **more: Any) -> Inputs:
    """Take tensors as a method's inputs: its base apart, or first of the models."""
    if method.base == "first" and base is not None:
        return Inputs.of(None, [base, *models], **more)
    return Inputs.of(base, models, **more)
