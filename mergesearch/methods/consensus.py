"""Consensus task arithmetic: what several tasks use of the summed task vector."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.combine import sum_of
from mergesearch.methods.formula import entrywise


@entrywise
def consensus_ta(
    base: Tensor, models: Sequence[Tensor], *, mask_lambda: Tensor, k: Tensor, lambda_: Tensor
) -> Tensor:
    """Consensus TA by TALL masks (arXiv:2405.07813): W0 + lambda m T.

    T is the sum of the task vectors T_i.
    A model uses the entries in which T is nearer to its own task vector than zero is, by a
    threshold: |T_i| >= mask_lambda_i |T - T_i| (equation 4). The mask m has those that `k` models
    use at least: entries of no use to any (catastrophic) and to fewer than k (selfish) are left
    out. With fewer models than `k` all of them must use an entry; with k of zero it is task
    arithmetic.

    Args:
        base: (rows, columns).
        models: n tensors of that shape.
        mask_lambda: (n,), the larger the sparser a model's mask; the paper's lambda_t.
        k: models that must agree, at least.
        lambda_: scale of the merged delta; the paper's alpha.
    """
    deltas = [model - base for model in models]
    total = sum_of(deltas)
    votes = torch.zeros_like(base)
    for i, delta in enumerate(deltas):
        votes = votes + (delta.abs() >= mask_lambda[i] * (total - delta).abs()).float()
    agreed = votes >= k.clamp(max=len(models))
    agreed = agreed | ~torch.isfinite(total)  # so that it shows
    return base + lambda_ * torch.where(agreed, total, 0.0)
