"""Linear layers with low-rank deltas beside their weights, as LoRA has them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mergesearch.merging.factors import factors_of
from mergesearch.merging.plan import Job
from mergesearch.parents import Parents


@dataclass(frozen=True)
class LowRank:
    """The deltas of a linear layer's models, side by side."""

    #: (total rank, columns), and (rows, total rank).
    a: Tensor
    b: Tensor
    #: Of each rank the index of its model, (total rank,).
    owners: Tensor

    @classmethod
    def of(cls, job: Job, parents: Parents, like: Tensor) -> "LowRank":
        """Put the factors of a job's models side by side, as `like` in dtype and device."""
        factors = factors_of(job, parents)
        assert factors is not None
        owners = [i for i, part in enumerate(factors) for _ in range(len(part.a))]
        return cls(
            torch.cat([part.a for part in factors]).to(like.device, like.dtype),
            torch.cat([part.b for part in factors], dim=1).to(like.device, like.dtype),
            torch.tensor(owners, device=like.device),
        )

    def added(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Compute sum(c_i B_i A_i x), with the coefficients of shape (models,)."""
        scale = coefficients.to(x.dtype)[self.owners]
        return functional.linear(functional.linear(x, self.a) * scale, self.b)

    def whole(self, coefficients: Tensor) -> Tensor:
        """Compute sum(c_i B_i A_i), (rows, columns)."""
        return (self.b * coefficients.to(self.b.dtype)[self.owners]) @ self.a


def put_beside(module: nn.Module, low_rank: LowRank, coefficients: Tensor) -> Callable[[], None]:
    """Let a linear layer compute W0 x + sum(c_i B_i A_i x).

    There are classes that take a layer's weight and do not call it, as Mamba's do with its time
    steps'. They are given W0 + sum(c_i B_i A_i).

    Args:
        module: an `nn.Linear`, or a subclass of it.
        low_rank: its deltas.
        coefficients: (models,); what the layer computes is differentiable in them.

    Returns:
        Makes the layer what it was.
    """
    plain, is_called = type(module), False

    def call(self: nn.Module, x: Tensor) -> Tensor:
        nonlocal is_called
        is_called = True
        try:
            output: Tensor = plain.__call__(self, x)
        finally:
            is_called = False
        return output + low_rank.added(x, coefficients)

    def weight(self: nn.Module) -> Tensor | None:
        own = self._parameters["weight"]
        return own if own is None or is_called else own + low_rank.whole(coefficients)

    module.__class__ = type(
        plain.__name__, (plain,), {"__call__": call, "weight": property(weight)}
    )

    def undo() -> None:
        module.__class__ = plain

    return undo
