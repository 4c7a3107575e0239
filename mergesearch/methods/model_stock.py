"""Model Stock: how far to go from the base, by the angles between task vectors."""

import torch
from torch import Tensor

from mergesearch.methods.combine import span
from mergesearch.methods.formula import Formula
from mergesearch.methods.gram import gram, gram_of_rows, span_by_row, span_of
from mergesearch.methods.inputs import Inputs


def model_stock(inputs: Inputs, *, filter_wise: bool = False) -> Formula:
    """Model Stock (arXiv:2403.19522): t mean(W_i) + (1 - t) W0.

    t = n c / (1 + (n - 1) c), where c is the mean cosine of the pairs of task vectors; zero where
    that has no finite value.

    Args:
        inputs: the base and n models, two or more.
        filter_wise: a t for each row instead of one for the tensor.
    """
    if filter_wise and inputs.n_dims > 1:
        return Formula(span, span_by_row(inputs, _shares(gram_of_rows(inputs))), heavy=True)
    return Formula(span, span_of(inputs, _shares(gram(inputs)).tolist()), heavy=True)


def _shares(products: Tensor) -> Tensor:
    """Coefficients t / n of the task vectors: float64 (..., n) from (..., n, n)."""
    n = products.shape[-1]
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    cosines = products / (norms.unsqueeze(-1) * norms.unsqueeze(-2)).clamp(min=1e-6)
    upper, lower = torch.triu_indices(n, n, offset=1)
    cosine = cosines[..., upper, lower].clamp(-1, 1).mean(-1)
    divisor = 1 + (n - 1) * cosine
    singular = divisor.abs() < 1e-6
    # the paper's ratio for N models, which cos theta between two task vectors gives
    t = torch.where(singular, 0.0, n * cosine / torch.where(singular, 1.0, divisor))
    return (t / n).unsqueeze(-1).expand(*t.shape, n)
