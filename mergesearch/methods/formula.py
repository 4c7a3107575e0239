"""Formulas: each row of a merged tensor follows from the same row of the inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mergesearch.methods.inputs import Inputs


@dataclass(frozen=True)
class ByRow:
    """A constant with a first dimension of one entry for each row."""

    tensor: Tensor


@dataclass(frozen=True)
class Formula:
    """A function of rows, and its constants.

    `function(base, models, **constants)` takes float32 tensors of shape (rows, columns), any
    number of whole rows of them, and gives a float32 tensor of that shape. It is a pure function
    of a module, so that it can be compiled.

        >>> import torch
        >>> from mergesearch.methods import Formula, Inputs
        >>> def halfway(base, models):
        ...     return base + 0.5 * (models[0] - base)
        >>> inputs = Inputs.of(torch.zeros(2, 2), [torch.ones(2, 2)])
        >>> [value.tolist() for _, value in inputs.values(Formula(halfway))]
        [[[0.5, 0.5], [0.5, 0.5]]]
    """

    function: Callable[..., Any]
    #: Tensors, `ByRow` tensors of which the function gets its rows, or plain flags.
    constants: Mapping[str, Any] = field(default_factory=dict)
    #: Whether the function takes `first`, the flat index of its first entry.
    indexed: bool = False
    #: Whether it makes so many temporaries that compiling it into one pass pays.
    heavy: bool = False
    #: Whether the function reads no model; it is then given the base in their place.
    of_base: bool = False


def plain(
    formula: Formula,
    base: Tensor | None,
    models: Sequence[Tensor],
    constants: Mapping[str, Any],
) -> Any:
    """Call the function as it stands, on float32 copies of other dtypes."""
    return widened(formula.function, base, models, constants)


def widened(
    function: Callable[..., Any],
    base: Tensor | None,
    models: Sequence[Tensor],
    constants: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Any:
    """`function(base, models, **constants)` on copies in a dtype."""
    wide = None if base is None else base.to(dtype)
    return function(wide, [model.to(dtype) for model in models], **constants)


def index_of(first: Tensor, like: Tensor) -> Tensor:
    """Flat index of each entry of a block: shape of `like`, dtype of `first`."""
    within = torch.arange(like.numel(), dtype=first.dtype, device=like.device)
    return (within + first).view(like.shape)


def numbers(
    values: Sequence[float] | Sequence[Tensor] | float | Tensor, inputs: "Inputs"
) -> Tensor:
    """Numbers as a float32 tensor beside the inputs.

    Where one of them is a tensor of one entry, all are float64 and keep its graph.
    """
    if isinstance(values, Tensor):
        return values.to(inputs.device)
    if isinstance(values, list | tuple) and any(isinstance(v, Tensor) for v in values):
        parts = [torch.as_tensor(v, dtype=torch.float64) for v in values]
        return torch.stack(parts).to(inputs.device)
    return torch.tensor(values, dtype=torch.float32, device=inputs.device)


def entrywise(function: Callable[..., Tensor]) -> Callable[..., Formula]:
    """Make a method of a function of rows: the parameters are its constants.

    Numbers become float32 tensors; flags and words stay what they are.
    """

    @wraps(function)
    def formula(inputs: "Inputs", **parameters: Any) -> Formula:
        return Formula(function, {k: _constant(v, inputs) for k, v in parameters.items()})

    return formula


def _constant(value: Any, inputs: "Inputs") -> Any:
    values = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(v, int | float | Tensor) and not isinstance(v, bool) for v in values):
        return numbers(value, inputs)
    return value
