"""Merging task vectors of which only a part is kept: which part is each method's own affair."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mergesearch.methods.combine import add, elect
from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import DELTA

Rescale = Literal["density"] | bool
#: Says of each entry of each task vector whether it is kept: (deltas, first, **marks) to masks.
Keep = Callable[..., list[Tensor]]


def sparse(
    inputs: Inputs,
    keep: Keep,
    marks: Mapping[str, Any],
    *,
    weight: Sequence[float],
    density: Sequence[float],
    lambda_: float,
    normalize: bool,
    rescale: Rescale,
    signs: bool,
) -> Formula:
    """W0 + lambda times the sum of what is kept of each weighted task vector.

    Args:
        inputs: the base and n models.
        keep: chooses the entries, with `marks` as its constants.
        marks: tensors that `keep` takes, by row or whole.
        weight: n floats.
        density: n floats, the fraction that is meant to be kept.
        lambda_: scale of the merged delta.
        normalize: divide by the sum of the weights (where it is not near zero), with `signs` by
            that of the weights that agree.
        rescale: `True` scales each kept part to the L1 norm of its whole task vector (mergekit's
            rule), "density" divides it by the density (the paper's rule of DARE), `False` does
            neither.
        signs: elect a sign for each entry, and keep what agrees (TIES).
    """
    total = sum(weight)
    divisor = total if normalize and not signs and abs(total) >= 1e-8 else 1.0
    factors = _factors(inputs, keep, marks, density, rescale)
    constants = {
        "keep": keep,
        **marks,
        "signs": signs,
        "normalize": normalize,
        "weight": numbers(weight, inputs),
        "scaled": numbers([w * f for w, f in zip(weight, factors, strict=True)], inputs),
        "scale": numbers(lambda_ / divisor, inputs),
    }
    return Formula(merge_kept, constants, indexed=True, heavy=True)


def merge_kept(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    first: Tensor,
    keep: Keep,
    signs: bool,
    normalize: bool,
    weight: Tensor,
    scaled: Tensor,
    scale: Tensor,
    **marks: Tensor,
) -> Tensor:
    """The formula of `sparse`; `scaled` are the weights times the factors of rescaling."""
    deltas = [model - base for model in models]
    kept = [
        torch.where(mask, delta, 0.0)
        for mask, delta in zip(keep(deltas, first, **marks), deltas, strict=True)
    ]
    if not signs:
        return add(base, kept, scaled, scale)
    weighted = [scaled[i] * delta for i, delta in enumerate(kept)]
    return base + scale * elect(weighted, weight, normalize)


def kept_magnitudes(
    base: Tensor, models: Sequence[Tensor], *, first: Tensor, keep: Keep, **marks: Tensor
) -> Tensor:
    """The magnitudes of what is kept, and zero elsewhere: (n, rows, columns)."""
    deltas = [model - base for model in models]
    masks = keep(deltas, first, **marks)
    return torch.stack([torch.where(m, d.abs(), 0.0) for m, d in zip(masks, deltas, strict=True)])


def _factors(
    inputs: Inputs,
    keep: Keep,
    marks: Mapping[str, Any],
    density: Sequence[float],
    rescale: Rescale,
) -> list[float]:
    if rescale == "density":
        return [1 / d for d in density]
    if not rescale or all(d >= 1 for d in density) or not inputs.n_entries:
        return [1.0] * len(density)
    constants = {"keep": keep, **marks}
    kept = inputs.sums(Formula(kept_magnitudes, constants, indexed=True, heavy=True))
    factors = []
    for i, (d, after) in enumerate(zip(density, kept.tolist(), strict=True)):
        before = _l1(inputs.only(i)) if d < 1 else after
        # norms this small are left as they are
        factors.append(1.0 if before < 1e-7 or after < 1e-7 else before / after)
    return factors


def _l1(one: Inputs) -> float:
    return one.recall("L1 norm", lambda: float(one.sums(_STACKED)[0]))


def _stacked_magnitude(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    return DELTA.function(base, models).unsqueeze(0)


_STACKED = Formula(_stacked_magnitude)
