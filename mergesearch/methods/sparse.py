"""Sparsified task vectors: a rule keeps a part of each, and the parts are merged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mergesearch.methods.combine import add, elected_sum
from mergesearch.methods.formula import Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.order import DELTA

Rescale = Literal["density"] | bool


@dataclass(frozen=True)
class KeepRule:
    """A choice of the entries of each task vector that are kept."""

    #: `constants(inputs, density, **parameters)`: what `masks` takes, from the densities and the
    #: rule's own parameters, n numbers each. Tensors, by row or whole.
    constants: Callable[..., Mapping[str, Any]]
    #: `masks(deltas, first, **constants)`: for each of n deltas of shape (rows, columns), the
    #: first entry's flat index being `first`, a mask of what is kept. A pure function of a module.
    masks: Callable[..., list[Tensor]]


def sparsified(rule: KeepRule, *, elect: bool) -> Callable[..., Formula]:
    """Make a method of a keep-rule: W0 + lambda sum(w_i T_i) of what it keeps.

    The method's parameters are the rule's own, n numbers each, and these:

        weight: n floats.
        density: n floats in (0, 1], the fraction of each task vector that is meant to be kept.
        lambda_: scale of the merged delta.
        normalize: divide by the sum of the weights (where it is not near zero), with `elect` by
            that of the weights that agree.
        rescale: `True` scales each kept part to the L1 norm of its whole task vector (mergekit's
            rule), "density" divides it by the density (the rescale of DARE,
            arXiv:2311.03099: delta / (1 - p)), `False` does neither.

    Args:
        rule: chooses the entries.
        elect: elect a sign for each entry, and keep what agrees (TIES, arXiv:2306.01708,
            Algorithm 1, steps 2 and 3).
    """

    def formula(
        inputs: Inputs,
        *,
        weight: Sequence[float],
        density: Sequence[float],
        lambda_: float,
        normalize: bool,
        rescale: Rescale,
        **parameters: Sequence[float],
    ) -> Formula:
        kept = {"keep": rule.masks, **rule.constants(inputs, density, **parameters)}
        factors = _factors(inputs, kept, density, rescale)
        total = sum(weight)
        divisor = total if normalize and not elect and abs(total) >= 1e-8 else 1.0
        constants = {
            **kept,
            "by_sign": elect,
            "normalize": normalize,
            "weight": numbers(weight, inputs),
            "scaled": numbers([w * f for w, f in zip(weight, factors, strict=True)], inputs),
            "scale": numbers(lambda_ / divisor, inputs),
        }
        return Formula(merge_kept, constants, indexed=True, heavy=True)

    return formula


def merge_kept(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    first: Tensor,
    keep: Callable[..., list[Tensor]],
    by_sign: bool,
    normalize: bool,
    weight: Tensor,
    scaled: Tensor,
    scale: Tensor,
    **marks: Tensor,
) -> Tensor:
    """Compute `sparsified`; `scaled` are the weights times the factors of rescaling."""
    deltas = [model - base for model in models]  # task vectors
    # drop or trim: the step that the rule is
    kept = [
        torch.where(mask, delta, 0.0)
        for mask, delta in zip(keep(deltas, first, **marks), deltas, strict=True)
    ]
    if not by_sign:
        return add(base, kept, scaled, scale)
    # TIES, Algorithm 1: elect, merge, and W0 + lambda tau
    weighted = [scaled[i] * delta for i, delta in enumerate(kept)]
    return base + scale * elected_sum(weighted, weight, normalize)


def kept_magnitudes(
    base: Tensor,
    models: Sequence[Tensor],
    *,
    first: Tensor,
    keep: Callable[..., list[Tensor]],
    **marks: Tensor,
) -> Tensor:
    """Magnitudes of what is kept, and zero elsewhere: (n, rows, columns)."""
    deltas = [model - base for model in models]
    masks = keep(deltas, first, **marks)
    return torch.stack([torch.where(m, d.abs(), 0.0) for m, d in zip(masks, deltas, strict=True)])


def _factors(
    inputs: Inputs, kept: Mapping[str, Any], density: Sequence[float], rescale: Rescale
) -> list[float]:
    """Factors of rescaling; `kept` are the function `keep` and its constants."""
    if rescale == "density":
        return [1 / d for d in density]
    if not rescale or all(d >= 1 for d in density) or not inputs.n_entries:
        return [1.0] * len(density)
    norms = inputs.sums(Formula(kept_magnitudes, kept, indexed=True, heavy=True))
    factors = []
    for i, (d, after) in enumerate(zip(density, norms.tolist(), strict=True)):
        before = _l1(inputs.only(i)) if d < 1 else after
        # norms this small are left as they are
        factors.append(1.0 if before < 1e-7 or after < 1e-7 else before / after)
    return factors


def _l1(one: Inputs) -> float:
    return one.recall("L1 norm", lambda: float(one.sums(_STACKED)[0]))


def _stacked_magnitude(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    return DELTA.function(base, models).unsqueeze(0)


_STACKED = Formula(_stacked_magnitude)
