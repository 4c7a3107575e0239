"""Linear layers with low-rank deltas beside their weights, as LoRA has them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mergesearch.merging.factors import factors_of
from mergesearch.merging.kernel import is_transposed
from mergesearch.merging.plan import Job
from mergesearch.parents import Parents
from mergesearch.products import linear


@dataclass(frozen=True)
class LowRank:
    """The deltas of a linear layer's models, side by side."""

    #: (total rank, inputs), and (outputs, total rank).
    a: Tensor
    b: Tensor
    #: Of each rank the index of its model, (total rank,).
    owners: Tensor
    #: Whether the layer's weight has a row for each input, as GPT-2's.
    is_transposed: bool

    @classmethod
    def of(cls, job: Job, parents: Parents, like: Tensor) -> "LowRank":
        """Put the factors of a job's models side by side, as `like` in dtype and device."""
        factors = factors_of(job, parents)
        assert factors is not None
        owners = [i for i, part in enumerate(factors) for _ in range(len(part.a))]
        turned = is_transposed(job, parents)
        sides = [part.T if turned else part for part in factors]
        return cls(
            torch.cat([part.a for part in sides]).to(like.device, like.dtype),
            torch.cat([part.b for part in sides], dim=1).to(like.device, like.dtype),
            torch.tensor(owners, device=like.device),
            turned,
        )

    def added(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Compute sum(c_i B_i A_i x), with the coefficients of shape (models,)."""
        scale = coefficients.to(x.dtype)[self.owners]
        return linear(linear(x, self.a) * scale, self.b)

    def whole(self, coefficients: Tensor) -> Tensor:
        """Compute sum(c_i B_i A_i) as the layer's weight is stored, (rows, columns)."""
        product = (self.b * coefficients.to(self.b.dtype)[self.owners]) @ self.a
        return product.T if self.is_transposed else product


def put_beside(module: nn.Module, low_rank: LowRank, coefficients: Tensor) -> Callable[[], None]:
    """Let a linear layer compute W0 x + sum(c_i B_i A_i x).

    There are classes that take a layer's weight and do not call it, as Mamba's do with its time
    steps'. They are given W0 + sum(c_i B_i A_i).

    Args:
        module: an `nn.Linear`, GPT-2's `Conv1D`, or a subclass of one.
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
