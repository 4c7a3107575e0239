"""A merge method on tensors at hand, without recipe or files."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods.declare import Method
from mergesearch.methods.inputs import Formula, Inputs

_FIELDS = ("name", "place", "block", "heavy_block", "call")


def apply(
    method: Method,
    base: Tensor | None,
    models: Sequence[Tensor],
    *,
    keys: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Merge tensors of one shape.

    Args:
        method: a row of the table.
        base: W0 of any shape S, or None where the method has no base.
        models: n tensors of shape S, of any float dtype.
        keys: int32 of shape (n, 2), for a method that draws random numbers.
        options: the method's parameters, and fields of `Inputs`.

    Returns:
        float32 tensor of shape S.
    """
    fields = {k: options.pop(k) for k in _FIELDS if k in options}
    inputs = inputs_of(method, base, models, keys=keys, **fields)
    out = torch.empty(inputs.shape, dtype=torch.float32, device=inputs.device)
    if not inputs.n_entries:
        return out.view(models[0].shape)
    formula: Formula = method.formula(inputs, **options)
    for rows, value in inputs.values(formula):
        out[rows] = value
    return out.view(models[0].shape)


def inputs_of(
    method: Method, base: Tensor | None, models: Sequence[Tensor], **fields: Any
) -> Inputs:
    """A method's inputs, the base among the models where it is one of them."""
    if method.base == "first" and base is not None:
        return Inputs.of(None, [base, *models], **fields)
    return Inputs.of(base, models, **fields)
