"""Spherical interpolation of two models, the whole or in two parts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.methods.combine import span
from mergesearch.methods.formula import Formula, index_of
from mergesearch.methods.gram import arc, gram, norm, span_of
from mergesearch.methods.inputs import Inputs

#: Beyond this cosine two tensors count as parallel.
PARALLEL = 0.9995


def slerp(inputs: Inputs, *, t: float) -> Formula:
    """Spherical linear interpolation (Shoemake 1985) between two models.

    sin((1-t)a)/sin(a) W_1 + sin(ta)/sin(a) W_2, where a is the angle between the flattened
    tensors; nearly parallel ones (|cos| > 0.9995) are interpolated linearly.

    Args:
        inputs: two models, the base first.
        t: the position between them: the base at 0, the other at 1.
    """
    return Formula(span, span_of(inputs, _ends(inputs, t)), heavy=True)


def crossover(inputs: Inputs, *, t: float, split: float) -> Formula:
    """Split-point crossover (M2N2, arXiv:2508.16204): slerp at t, and then at 1 - t.

    Slerp at t before the point, at 1 - t after it. The point lies in the flattened model, so that
    it may cut a tensor; the angle is that of the whole tensor, as in `slerp`.

    Args:
        inputs: two models, the base first, and the tensor's range in the flattened model.
        t: the position between them before the split point.
        split: where the point lies, as a fraction of the model's entries, in [0, 1].
    """
    start, size = inputs.flat_range
    point = max(0, min(round(split * size) - start, inputs.n_entries))
    constants = {
        "before": span_of(inputs, _ends(inputs, t))["coefficient"],
        "after": span_of(inputs, _ends(inputs, 1 - t))["coefficient"],
        "point": torch.tensor(point, dtype=torch.int64, device=inputs.device),
    }
    return Formula(two_spans, constants, indexed=True, heavy=True)


def two_spans(
    base: None,
    models: Sequence[Tensor],
    *,
    first: Tensor,
    before: Tensor,
    after: Tensor,
    point: Tensor,
) -> Tensor:
    """One weighted sum for the entries before `point`, another from there on."""
    earlier = index_of(first, models[0]) < point
    here = span(base, models, coefficient=before)
    return torch.where(earlier, here, span(base, models, coefficient=after))


def _ends(inputs: Inputs, t: float) -> list[Tensor]:
    """Coefficient of each model at t."""
    products = gram(inputs)
    norms = [norm(float(products[i, i])) for i in range(2)]
    # norms below 1e-8 count as one
    lengths = [length if length > 1e-8 else 1.0 for length in norms]
    cosine = products[0, 1] / (lengths[0] * lengths[1])
    return list(arc(t, cosine, cosine.abs() > PARALLEL))
