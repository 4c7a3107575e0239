"""Derivatives of merged tensors in a method's numbers, through its own formula."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods.declare import Method
from mergesearch.methods.executor import Call
from mergesearch.methods.formula import ByRow, Formula, widened
from mergesearch.methods.inputs import Inputs


def pull_back(
    method: Method,
    inputs: Inputs,
    arguments: Mapping[str, Any],
    gradient: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Take the gradient of a merged tensor back to the method's arguments.

    A vector-Jacobian product: of each argument c, sum(gradient * d merged / d c). It goes from the
    entries to the formula's constants block by block, and from these to the arguments at once. Of a
    combination, whose coefficients say all, the entries are multiplied and nothing else.

    Args:
        method: a row of the table.
        inputs: what was merged.
        arguments: of the formula; those with a value and a derivative are differentiated.
        gradient: of the merged tensor, in its shape.
        dtype: what the formula is computed in.

    Returns:
        By the argument's name: float64 on the CPU, () or (models,).

    Raises:
        ValueError: the method has no differentiable parameter.
    """
    if not method.differentiable:
        names = ", ".join(p.name for p in method.parameters) or "none"
        raise ValueError(
            f"a parameter must be differentiable, but none of the method's is: {names}"
        )
    if method.combination:
        along = _along(inputs, gradient, dtype)
        return pull_back_combination(method, len(inputs.models), arguments, along)
    with torch.enable_grad():
        leaves = _leaves(method, arguments)
        formula = method.formula(inputs, **{**arguments, **spread(leaves)})
        constants, sums = _to_constants(formula, inputs, gradient, dtype)
        if not constants:
            return _named(leaves, [None] * len(leaves))
        found = torch.autograd.grad(constants, list(leaves.values()), sums, allow_unused=True)
    return _named(leaves, found)


def combination(method: Method, n_models: int, arguments: Mapping[str, Any]) -> Tensor:
    """Give the coefficients of base and models in a combination's entries.

    The formula is called on columns that are zero but for one input: what comes out of a column is
    the coefficient of that input.

    Args:
        method: a row whose `combination` is set.
        n_models: besides the base.
        arguments: of the formula; the result is differentiable in those that are tensors.

    Returns:
        (1 + models,), the base's first, 0 where there is none.

    Raises:
        ValueError: the row is no combination.
    """
    if not method.combination:
        raise ValueError("the method must be a combination: its row says that it is not")
    columns = torch.eye(1 + n_models)
    base = None if method.base == "unused" else columns[:1]
    inputs = Inputs.of(base, [columns[i : i + 1] for i in range(1, 1 + n_models)])
    formula = method.formula(inputs, **method.arguments(n_models, arguments))
    ((_, value),) = inputs.values(formula, block=columns.numel())
    return value[0]


def pull_back_combination(
    method: Method, n_models: int, arguments: Mapping[str, Any], gradient: Tensor
) -> dict[str, Tensor]:
    """Take the gradient of a combination's coefficients back to the arguments.

    Args:
        method: a row whose `combination` is set.
        n_models: besides the base.
        arguments: of the formula.
        gradient: with respect to the models' coefficients, (models,).

    Returns:
        As `pull_back` does.
    """
    with torch.enable_grad():
        leaves = _leaves(method, arguments)
        if not leaves:
            return {}
        coefficients = combination(method, n_models, {**arguments, **spread(leaves)})[1:]
        found = torch.autograd.grad(
            coefficients, list(leaves.values()), gradient.to(coefficients), allow_unused=True
        )
    return _named(leaves, found)


def _named(leaves: Mapping[str, Tensor], found: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Give gradients by the names of their leaves, zero where there is no way to one."""
    return {
        name: torch.zeros_like(leaf) if value is None else value
        for (name, leaf), value in zip(leaves.items(), found, strict=True)
    }


def _leaves(method: Method, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Make a leaf of each differentiable argument that has a value."""
    return {
        p.argument: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for p in method.differentiable
        if (value := arguments.get(p.argument)) is not None
        and not (isinstance(value, list | tuple) and None in value)
    }


def spread(leaves: Mapping[str, Tensor]) -> dict[str, Any]:
    """Give leaves as formulas take numbers: one, or a list of one a model."""
    return {name: list(leaf.unbind()) if leaf.dim() else leaf for name, leaf in leaves.items()}


def _to_constants(
    formula: Formula, inputs: Inputs, gradient: Tensor, dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Sum up the gradients of constants that follow from arguments, block by block."""
    whole = {k: v.tensor if isinstance(v, ByRow) else v for k, v in formula.constants.items()}
    followed = {k: v for k, v in whole.items() if isinstance(v, Tensor) and v.requires_grad}
    if not followed or not inputs.n_entries:
        return [], []
    parts = {k: v.detach().to(dtype).requires_grad_() for k, v in followed.items()}
    constants = {
        k: (ByRow(parts[k]) if isinstance(v, ByRow) else parts[k]) if k in parts else v
        for k, v in formula.constants.items()
    }
    sums = {k: torch.zeros_like(v) for k, v in followed.items()}
    rows_of = gradient.reshape(inputs.shape)
    wide = replace(inputs, executor=replace(inputs.executor, call=called_in(dtype)))
    for rows, value in wide.values(replace(formula, constants=constants)):
        found = torch.autograd.grad(
            value, list(parts.values()), rows_of[rows].to(value), allow_unused=True
        )
        for k, part in zip(parts, found, strict=True):
            if part is not None:
                sums[k] += part.to(sums[k].dtype)
    return list(followed.values()), list(sums.values())


def _along(inputs: Inputs, gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """Give the gradient with respect to the coefficients of a combination.

    Sums of the gradient times each model, or times its delta where there is a base: float64,
    (models,).
    """
    formula = Formula(_products, {"gradient": ByRow(gradient.reshape(inputs.shape))})
    wide = replace(inputs, executor=replace(inputs.executor, call=called_in(dtype)))
    sums = torch.zeros(len(inputs.models), dtype=torch.float64, device=inputs.device)
    for _, products in wide.values(formula):
        sums += products
    return sums.cpu()


def _products(base: Tensor | None, models: Sequence[Tensor], *, gradient: Tensor) -> Tensor:
    moved = models if base is None else [model - base for model in models]
    return torch.stack([of.flatten().dot(gradient.flatten()) for of in moved])


def called_in(dtype: torch.dtype) -> Call:
    """Make the call of formulas on inputs and constants of a dtype."""

    def wide(constant: Any) -> Any:
        is_number = isinstance(constant, Tensor) and constant.is_floating_point()
        return constant.to(dtype) if is_number else constant

    def call(
        formula: Formula,
        base: Tensor | None,
        models: Sequence[Tensor],
        constants: Mapping[str, Any],
    ) -> Any:
        own = {name: wide(constant) for name, constant in constants.items()}
        return widened(formula.function, base, models, own, dtype)

    return call
