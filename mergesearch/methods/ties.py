"""TIES: trim, elect signs, merge what agrees."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import Cut, among, delta_cuts
from mergesearch.methods.sparse import sparse


def ties(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = True,
    rescale: bool = False,
) -> Formula:
    """TIES-Merging (arXiv:2306.01708).

    Of each task vector the max(1, int(density n)) entries of largest magnitude are kept; among
    equal magnitudes at the threshold those of lower index (row-major).

    Args:
        inputs: the base and n models.
        weight: n floats.
        density: n floats in (0, 1]: the fraction of each task vector that is kept.
        lambda_: scale of the merged delta.
        normalize: divide each entry by the sum of the weights that agree on its sign.
        rescale: scale each trimmed task vector to the L1 norm of the full one.
    """
    n = inputs.n_entries
    cuts = [delta_cuts(inputs, i, max(1, int(d * n)))[0] for i, d in enumerate(density)]
    return sparse(
        inputs, keep_largest, cut_constants(cuts, inputs), weight=weight, density=density,
        lambda_=lambda_, normalize=normalize, rescale=rescale, signs=True,
    )  # fmt: skip


def keep_largest(
    deltas: Sequence[Tensor], first: Tensor, threshold: Tensor, last: Tensor
) -> list[Tensor]:
    """Whether each entry is among the largest of its task vector."""
    return [among(d.abs(), threshold[i], last[i], first) for i, d in enumerate(deltas)]


def cut_constants(cuts: Sequence[Cut], inputs: Inputs) -> dict[str, Tensor]:
    """Cuts as tensors, one entry for each model."""
    index = torch.int32 if inputs.n_entries < 2**31 else torch.int64
    return {
        "threshold": numbers([c.threshold for c in cuts], inputs),
        "last": torch.tensor([c.last for c in cuts], dtype=index, device=inputs.device),
    }
