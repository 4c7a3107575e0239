"""Merges in float64, for derivatives to be tested by finite differences."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mergesearch.methods import Inputs
from mergesearch.methods.derivative import called_in, spread
from mergesearch.methods.executor import Executor
from mergesearch.methods.tensors import as_inputs
from mergesearch.testing.cases import Case


def inputs_of(case: Case) -> Inputs:
    """Take a case's tensors as the inputs of its method."""
    flat_range = (0, max(1, case.models[0].numel()))
    return as_inputs(
        case.method,
        case.base,
        case.models,
        keys=case.keys,
        flat_range=flat_range,
        statistics=case.statistic,
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
        formula = case.method.formula(inputs, **{**case.arguments, **spread(leaves)})
    wide = replace(inputs, executor=Executor(call=called_in(torch.float64)))
    merged = torch.empty(inputs.shape, dtype=torch.float64)
    with torch.no_grad():
        for rows, value in wide.values(formula):
            merged[rows] = value
    return merged
