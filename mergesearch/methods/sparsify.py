"""Keeping a part of a task vector: its largest entries, or random ones."""

from typing import Literal

import torch
from torch import Tensor

from mergesearch.methods.reduce import total

Rescale = Literal["density"] | bool


def trim(delta: Tensor, density: float) -> Tensor:
    """Keep the max(1, int(density * n)) entries of largest magnitude, and zero the others.

    Among equal magnitudes at the threshold, those of lower index (row-major) are kept.

    Args:
        delta: float32 tensor of any shape, n entries.
        density: the kept fraction, in (0, 1].

    Returns:
        A new float32 tensor of the same shape, or `delta` itself when nothing is cut.
    """
    n = delta.numel()
    if density >= 1 or n == 0:
        return delta
    kept = max(1, int(density * n))
    magnitude = delta.abs().flatten()
    threshold = torch.kthvalue(magnitude, n - kept + 1).values
    keep = magnitude > threshold
    ties = (magnitude == threshold).nonzero().flatten()
    keep[ties[: kept - int(keep.sum())]] = True
    return delta * keep.view_as(delta)


def drop(delta: Tensor, density: float, rescale: Rescale, generator: torch.Generator) -> Tensor:
    """Keep each entry with probability `density` (DARE, arXiv:2311.03099).

    Args:
        delta: float32 tensor of any shape.
        density: the probability of keeping an entry, in (0, 1].
        rescale: `True` scales so that the L1 norm is that of the full delta (mergekit's rule),
            "density" divides by the density (the paper's rule), `False` does neither.
        generator: a CPU generator, so that the mask is the same on every device.

    Returns:
        A new float32 tensor of the same shape, or `delta` itself when nothing is cut.
    """
    if density >= 1 or delta.numel() == 0:
        return delta
    mask = torch.rand(delta.shape, generator=generator) < density
    dropped = delta * mask.to(delta.device)
    if rescale == "density":
        return dropped / density
    return match_l1(dropped, delta) if rescale else dropped


def match_l1(sparse: Tensor, full: Tensor) -> Tensor:
    """Scale `sparse` to the L1 norm of `full`; left as it is when either norm is below 1e-7."""
    before, after = total(full.abs()), total(sparse.abs())
    return sparse if min(before, after) < 1e-7 else sparse * (before / after)
