"""Sums over the inputs of linear layers: Gram matrices, and mean magnitudes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergesearch.calibration.folder import Entry
from mergesearch.merging.threads import Workers


@dataclass(frozen=True)
class Group:
    """Linear layers that get the same tensors, by name; what follows from them is one."""

    names: tuple[str, ...]
    #: Of each text that reaches them, (tokens, columns).
    inputs: tuple[Tensor, ...]


#: From the inputs of each text to a statistic.
Sum = Callable[[Sequence[Tensor]], Tensor]


def grouped(inputs: Mapping[str, Sequence[Tensor]]) -> list[Group]:
    """Join the layers that share their inputs, as queries, keys and values do."""
    names: dict[tuple[int, ...], list[str]] = {}
    for name, tensors in inputs.items():
        names.setdefault(tuple(id(tensor) for tensor in tensors), []).append(name)
    return [
        Group(tuple(of), tuple(x.reshape(-1, x.shape[-1]) for x in inputs[of[0]]))
        for of in names.values()
    ]


def summed(
    inputs: Mapping[str, Sequence[Tensor]],
    sum_of: Sum,
    stored_names: Mapping[str, str],
    pool: Workers,
) -> list[Entry]:
    """Compute a statistic of each group of linear layers, on the CPU.

    Args:
        inputs: of each layer by its name, text by text.
        sum_of: computes the statistic.
        stored_names: of parameters in a checkpoint; layers whose weight is not in it as it is, as
            an expert that is fused with others, are left out.
        pool: runs groups beside each other.
    """
    groups = grouped({n: x for n, x in inputs.items() if f"{n}.weight" in stored_names})
    sums = pool.map(lambda group: sum_of(group.inputs).cpu(), groups)
    return [
        (tuple(stored_names[f"{name}.weight"] for name in group.names), value)
        for group, value in zip(groups, sums, strict=True)
    ]


@torch.no_grad()
def gram(inputs: Sequence[Tensor]) -> Tensor:
    """X^T X / n over all n tokens: float32 (columns, columns).

    Text by text in their order, for the same bits.
    """
    columns = inputs[0].shape[1]
    total = torch.zeros(columns, columns, device=inputs[0].device)
    for x in inputs:
        wide = x.float()
        total.addmm_(wide.T, wide)
    return total / sum(len(x) for x in inputs)


@torch.no_grad()
def magnitude(inputs: Sequence[Tensor]) -> Tensor:
    """Mean |x| over all tokens: float32 (columns,)."""
    total = torch.zeros(inputs[0].shape[1], device=inputs[0].device)
    for x in inputs:
        total += x.float().abs().sum(0)
    return total / sum(len(x) for x in inputs)
