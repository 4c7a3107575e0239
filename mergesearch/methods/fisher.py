"""Fisher merging: a mean by how sure each model is of each entry."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.formula import ByRow, Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.regression import mean


def fisher(inputs: Inputs, *, weight: Sequence[float]) -> Formula:
    """Fisher-weighted averaging (arXiv:2111.09832, section 3).

    sum(w_i F_i W_i) / sum(w_i F_i), entry by entry, F_i the diagonal of model i's Fisher
    information. Where no model's loss depends on an entry, and in tensors without a gradient, it is
    the weighted mean.

    Args:
        inputs: n models, and the statistic "fisher".
        weight: n floats, none negative (the paper's lambda).
    """
    shares = numbers([w / sum(weight) for w in weight], inputs)
    found = [inputs.statistic("fisher", i) for i in range(len(inputs.models))]
    information = [one for one in found if one is not None]
    if not inputs.n_entries or len(information) < len(found):
        return Formula(mean, {"weight": shares})
    by_row = {f"f{i}": ByRow(one.to(inputs.device)) for i, one in enumerate(information)}
    return Formula(weighted, {"weight": shares, **by_row})


def weighted(
    base: Tensor | None, models: Sequence[Tensor], *, weight: Tensor, **information: Tensor
) -> Tensor:
    """sum(w_i F_i W_i) / sum(w_i F_i), and sum(w_i W_i) where that has no value."""
    parts = [weight[i] * information[f"f{i}"].float() for i in range(len(models))]
    total = torch.zeros_like(models[0])
    for part in parts:
        total = total + part
    centre = mean(base, models, weight=weight)
    delta = torch.zeros_like(centre)
    for part, model in zip(parts, models, strict=True):
        share = torch.where(total > 0, part / total, 0.0)
        # of a model that counts for nothing an entry that is not finite shows all the same
        delta = delta + share * (model - centre)
    return centre + delta
