"""Merges in float64, for derivatives to be tested by finite differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods import Formula, Inputs
from mergesearch.methods.executor import Executor
from mergesearch.methods.formula import ByRow
from mergesearch.testing.cases import Case


def inputs_of(case: Case) -> Inputs:
    """Take a case's tensors as the inputs of its method."""
    first = case.method.base == "first" and case.base is not None
    return Inputs.of(
        None if first else case.base,
        [case.base, *case.models] if first and case.base is not None else case.models,
        keys=case.keys,
        flat_range=(0, max(1, case.models[0].numel())),
    )


def in_float64(case: Case, moved: Mapping[str, Tensor]) -> Tensor:
    """Merge with some arguments as float64 tensors, all arithmetic in float64.

    Args:
        case: a method with all that it is called with.
        moved: by the argument's name: (), or (models,).

    Returns:
        float64 (rows, columns).
    """
    inputs = inputs_of(case)
    with torch.enable_grad():  # for no constant to be rounded
        leaves = {name: value.clone().requires_grad_() for name, value in moved.items()}
        given = {k: list(v.unbind()) if v.dim() else v for k, v in leaves.items()}
        formula = case.method.formula(inputs, **{**case.arguments, **given})
    constants = {name: _widened(value) for name, value in formula.constants.items()}
    wide = Formula(formula.function, constants, formula.indexed, formula.heavy)
    executor = Executor(call=_in_float64)
    merged = torch.empty(inputs.shape, dtype=torch.float64)
    for rows, value in executor.values(wide, inputs.base, inputs.models):
        merged[rows] = value
    return merged


def _widened(constant: Any) -> Any:
    if isinstance(constant, ByRow):
        return ByRow(_widened(constant.tensor))
    if isinstance(constant, Tensor) and constant.is_floating_point():
        return constant.detach().double()
    return constant


def _in_float64(
    formula: Formula,
    base: Tensor | None,
    models: Sequence[Tensor],
    constants: Mapping[str, Any],
) -> Any:
    wide = None if base is None else base.double()
    return formula.function(wide, [model.double() for model in models], **constants)
