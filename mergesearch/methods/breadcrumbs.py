"""Model Breadcrumbs' rule: drop the largest and the smallest of each task vector."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import Cut, among, cut_constants, delta_cuts
from mergesearch.methods.sparse import KeepRule


def bands(inputs: Inputs, density: Sequence[float], gamma: Sequence[float]) -> dict[str, Any]:
    """Cuts of Model Breadcrumbs (arXiv:2312.06795).

    Of n entries the int(gamma n) of largest magnitude are dropped, and then as many of the
    smallest as leave int(density n); fewer of the largest where less than that would be left.
    Among equal magnitudes those of lower index count as larger.

    Args:
        inputs: the base and n models.
        density: n floats in (0, 1]: the fraction of each task vector that is kept.
        gamma: n floats in [0, 1]: the fraction that is dropped from above.
    """
    pairs = [_cuts(inputs, i, d, g) for i, (d, g) in enumerate(zip(density, gamma, strict=True))]
    lower = cut_constants([pair[0] for pair in pairs], inputs)
    upper = cut_constants([pair[1] for pair in pairs], inputs)
    return lower | {f"upper_{name}": tensor for name, tensor in upper.items()}


def keep_between(
    deltas: Sequence[Tensor],
    first: Tensor,
    threshold: Tensor,
    last: Tensor,
    upper_threshold: Tensor,
    upper_last: Tensor,
) -> list[Tensor]:
    """Masks of the entries that are among the largest, but not among the very largest."""
    masks = []
    for i, delta in enumerate(deltas):
        magnitude = delta.abs()
        outlier = among(magnitude, upper_threshold[i], upper_last[i], first) & ~magnitude.isnan()
        masks.append(among(magnitude, threshold[i], last[i], first) & ~outlier)
    return masks


def _cuts(inputs: Inputs, i: int, density: float, gamma: float) -> list[Cut]:
    """End of the kept entries, and that of the outliers."""
    n = inputs.n_entries
    kept = n if density >= 1 else int(density * n)
    outliers = min(int(gamma * n), n - kept)
    return delta_cuts(inputs, i, outliers + kept, outliers)


BREADCRUMBS = KeepRule(bands, keep_between)
