"""Model Breadcrumbs: drop the largest entries of the task vectors as well as the smallest."""

from collections.abc import Sequence

from torch import Tensor

from mergesearch.methods.formula import Formula
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import Cut, among, delta_cuts
from mergesearch.methods.sparse import sparse
from mergesearch.methods.ties import cut_constants


def breadcrumbs(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: bool = False,
) -> Formula:
    """Model Breadcrumbs (arXiv:2312.06795).

    Of n entries the int(gamma n) of largest magnitude are dropped, and then as many of the
    smallest as leave int(density n); fewer of the largest where less than that would be left.
    Among equal magnitudes those of lower index count as larger.

    Args:
        inputs: the base and n models.
        weight: n floats.
        density: n floats in (0, 1]: the fraction of each task vector that is kept.
        gamma: n floats in [0, 1]: the fraction that is dropped from above.
        lambda_: scale of the merged delta.
        normalize: divide by the sum of the weights.
        rescale: scale what is kept to the L1 norm of the full task vector.
    """
    return _breadcrumbs(inputs, weight, density, gamma, lambda_, normalize, rescale, signs=False)


def breadcrumbs_ties(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    lambda_: float = 1.0,
    normalize: bool = False,
    rescale: bool = False,
) -> Formula:
    """Model Breadcrumbs, then the sign election of TIES; arguments as for `breadcrumbs`."""
    return _breadcrumbs(inputs, weight, density, gamma, lambda_, normalize, rescale, signs=True)


def keep_between(
    deltas: Sequence[Tensor],
    first: Tensor,
    threshold: Tensor,
    last: Tensor,
    upper_threshold: Tensor,
    upper_last: Tensor,
) -> list[Tensor]:
    """Whether each entry is among the largest, but not among the very largest."""
    masks = []
    for i, delta in enumerate(deltas):
        magnitude = delta.abs()
        outlier = among(magnitude, upper_threshold[i], upper_last[i], first) & ~magnitude.isnan()
        masks.append(among(magnitude, threshold[i], last[i], first) & ~outlier)
    return masks


def _breadcrumbs(
    inputs: Inputs,
    weight: Sequence[float],
    density: Sequence[float],
    gamma: Sequence[float],
    lambda_: float,
    normalize: bool,
    rescale: bool,
    *,
    signs: bool,
) -> Formula:
    pairs = [_cuts(inputs, i, d, g) for i, (d, g) in enumerate(zip(density, gamma, strict=True))]
    lower = cut_constants([pair[0] for pair in pairs], inputs)
    upper = cut_constants([pair[1] for pair in pairs], inputs)
    return sparse(
        inputs, keep_between, lower | {f"upper_{name}": t for name, t in upper.items()},
        weight=weight, density=density, lambda_=lambda_, normalize=normalize, rescale=rescale,
        signs=signs,
    )  # fmt: skip


def _cuts(inputs: Inputs, i: int, density: float, gamma: float) -> list[Cut]:
    """Where the kept entries end, and where the outliers do."""
    n = inputs.n_entries
    kept = n if density >= 1 else int(density * n)
    outliers = min(int(gamma * n), n - kept)
    return delta_cuts(inputs, i, outliers + kept, outliers)
