"""Localize-and-Stitch: small regions of each task vector, stitched onto the base."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.ties import keep_largest, largest


def localize_and_stitch(
    inputs: Inputs, *, density: Sequence[float], lambda_: float = 1.0
) -> Formula:
    """Dataless Localize-and-Stitch (arXiv:2408.13656), by tensor.

    Localized without data, a task's region is the entries of largest magnitude of its task vector
    (section 3.2). Stitched, each region takes its model's entries, and their mean where regions
    overlap: W0 + lambda sum(m_i T_i) / sum(m_i).

    Args:
        inputs: the base and n models.
        density: n floats in (0, 1]: the region's part of a tensor's entries.
        lambda_: scale of the merged delta; 1 in the paper.
    """
    constants = {**largest(inputs, density), "scale": numbers(lambda_, inputs)}
    return Formula(stitch, constants, indexed=True, heavy=True)


def stitch(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    first: Tensor,
    threshold: Tensor,
    last: Tensor,
    scale: Tensor,
) -> Tensor:
    """W0 and the mean, entry by entry, of the task vectors whose region has the entry."""
    deltas = [model - base for model in models]
    merged, overlaps = torch.zeros_like(base), torch.zeros_like(base)
    for delta, mask in zip(deltas, keep_largest(deltas, first, threshold, last), strict=True):
        merged = merged + torch.where(mask, delta, 0.0)
        overlaps = overlaps + mask.float()
    return base + scale * (merged / overlaps.clamp(min=1.0))
