"""Merging by regression: layers that do on their models' inputs what these do.

Of models W_i with Gram matrices G_i of their inputs, the sum of |W X_i - W_i X_i|^2 is least at
W = sum(W_i G_i) sum(G_i)^-1. All methods here solve that, from activations (RegMean) or from task
vectors in their stead (WUDI), held to zero or to an anchor where the inputs say little (BMM). Each
tensor's matrix is taken apart into eigenvectors once; another shrinkage or ridge costs a product,
and weights that differ cost another decomposition. Of LoRA adapters it is as small as their ranks
together. Tensors that are no linear layer's weight take a mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mergesearch.methods.combine import scaled_sum, sum_of
from mergesearch.methods.factors import CoreSpace
from mergesearch.methods.formula import ByRow, Formula, numbers
from mergesearch.methods.inputs import Inputs
from mergesearch.methods.subspace import add_direction, mean_direction, task_vectors
from mergesearch.methods.task_arithmetic import add_deltas

#: A Gram matrix of activations is stored in float32, and summed up in it, too.
_STORED = 8 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Spectrum:
    """A symmetric matrix S^-1 Q diag(values) Q^T S^-1, and what is divided by it.

    It is taken apart in float64: the weak directions, of which a ridge or a shrinkage decides, are
    lost in a float32 matrix's own rounding. What then costs each candidate a product is float32.
    """

    #: Eigenvalues, none negative: float64 (columns,).
    values: Tensor
    #: Smaller than this an eigenvalue may be rounding: ().
    noise: Tensor
    #: Numerators in the eigenvectors, float32 (rows, columns) each.
    numerators: tuple[Tensor, ...]
    #: Back to the columns: Q^T S, float32 (columns, columns).
    back: Tensor
    #: Back to the rows, float32 (rows, p), where the numerators are coordinates: (p, q), of q
    #: eigenvectors. All others have eigenvalues of zero.
    left: Tensor | None = None

    @classmethod
    def of(
        cls,
        matrix: Tensor,
        numerators: Sequence[Tensor],
        scale: Tensor | None = None,
        *,
        exact_to: float,
    ) -> "Spectrum":
        """Take a matrix apart, and bring numerators into its eigenvectors.

        Args:
            matrix: float64 (columns, columns).
            numerators: float64 (rows, columns) each.
            scale: the diagonal of S, (columns,); None is ones.
            exact_to: what the matrix is known to, as a part of its largest eigenvalue.
        """
        n = len(matrix)
        scale = torch.ones(n, dtype=matrix.dtype) if scale is None else scale
        if not all(bool(torch.isfinite(part).all()) for part in (matrix, *numerators)):
            # LAPACK says so by an error of its own
            nan = torch.full((n,), torch.nan, dtype=matrix.dtype)
            shown = tuple(torch.full_like(part, torch.nan).float() for part in numerators)
            return cls(nan, nan[0], shown, torch.eye(n))
        values, vectors = torch.linalg.eigh(scale[:, None] * matrix * scale)
        return cls(
            values.clamp(min=0),
            torch.cat([values, values.new_zeros(1)]).max() * exact_to,
            tuple(((part * scale) @ vectors).float() for part in numerators),
            (vectors.T * scale).float(),
        )

    def outside(self, space: CoreSpace) -> "Spectrum":
        """Take what was found of cores (p, q) back to the matrices that they are of."""
        return replace(self, back=self.back @ space.right.T.float(), left=space.left.float())

    @property
    def mean(self) -> Tensor:
        """The mean of all eigenvalues: ()."""
        return self.values.sum() / self.back.shape[1]

    def solve(self, numerator: Tensor, values: Tensor) -> Tensor:
        """Divide by values along the eigenvectors; along those of zero there is nothing."""
        inverse = torch.where(values <= self.noise, 0.0, 1 / values).float()
        found = (numerator * inverse) @ self.back
        return found if self.left is None else self.left @ found


def regmean(inputs: Inputs, *, weight: Sequence[float], alpha: float = 0.9) -> Formula:
    """RegMean (arXiv:2212.09849, equation 2), each model's part weighted.

    W = sum(w_i W_i G_i) sum(w_i G_i)^-1, with the off-diagonals of G_i multiplied by alpha. G_i is
    a mean over tokens, so that no model counts for the length of its prompts. Along inputs that no
    prompt has, and in all other tensors, it is the weighted mean of the models.

    Args:
        inputs: n models, and the statistic "gram".
        weight: n floats, none negative.
        alpha: in [0, 1]; 0 leaves the diagonals alone.
    """
    return _regmean("gram", inputs, weight, alpha)


def regmean_pp(inputs: Inputs, *, weight: Sequence[float], alpha: float = 0.9) -> Formula:
    """RegMean++ (arXiv:2508.03121): `regmean` on inputs from merged layers.

    The inputs of a layer come through the layers before it as RegMean++ merges them at equal
    weights and alpha's default, so that no candidate changes them.

    Args:
        inputs: n models, and the statistic "merged gram".
        weight: n floats, none negative.
        alpha: as for `regmean`.
    """
    return _regmean("merged gram", inputs, weight, alpha)


def _regmean(kind: str, inputs: Inputs, weight: Sequence[float], alpha: float) -> Formula:
    shares = [w / sum(weight) for w in weight]
    constants = {"weight": numbers(shares, inputs)}
    if (grams := _grams(kind, inputs)) is None:
        return Formula(mean, constants)

    def compute() -> Spectrum:
        models = [inputs.by_input(model).double().cpu() for model in inputs.models]
        centre = scaled_sum(models, shares)
        weighted = [share * gram.double() for share, gram in zip(shares, grams, strict=True)]
        apart = list(zip([model - centre for model in models], weighted, strict=True))
        whole = sum_of([delta @ gram for delta, gram in apart])
        diagonal = sum_of([delta * gram.diagonal() for delta, gram in apart])
        total = sum_of(weighted)
        # C = D^-1/2 G D^-1/2 has ones on its diagonal, so that shrinkage is alpha C + (1 - alpha) I
        scale = _inverse_root(total.diagonal())
        return Spectrum.of(total, (whole, diagonal), scale, exact_to=_STORED)

    spectrum = _recalled(inputs, f"regmean {kind}", shares, compute)
    whole, diagonal = spectrum.numerators
    numerator = alpha * whole + (1 - alpha) * diagonal
    delta = spectrum.solve(numerator, alpha * spectrum.values + (1 - alpha))
    shown = ByRow(inputs.by_input(delta).to(inputs.device))
    return Formula(add_to_mean, {**constants, "delta": shown})


def wudi(inputs: Inputs, *, lambda_: float = 1.0, ridge: float = 0.1) -> Formula:
    """WUDI (arXiv:2503.08099) in closed form, filtered as in arXiv:2606.07289.

    Task vectors lie in the span of their layers' inputs, so T_i^T T_i / |T_i|^2 stands in for G_i.
    The delta that interferes least, sum(T_i G_i) (sum(G_i) + ridge I)^-1, is found without any
    data; the ridge keeps noise out of weak directions, which the exact solution lets in.

    Args:
        inputs: the base and n models.
        lambda_: scale of the delta.
        ridge: a part of the mean eigenvalue of sum(G_i).
    """
    if not _is_regressed(inputs):
        return mean_direction(inputs, lambda_)

    def solved(deltas: Sequence[Tensor]) -> Spectrum:
        grams = _own_grams(deltas)
        whole = sum_of([d @ g for d, g in zip(deltas, grams, strict=True)])
        return Spectrum.of(sum_of(grams), [whole], exact_to=_computed(whole.shape[1]))

    spectrum = inputs.recall("wudi", lambda: _of_task_vectors(inputs, solved))
    direction = inputs.by_input(_ridged(spectrum, ridge)).to(inputs.device)
    constants = {"direction": ByRow(direction), "scale": numbers(lambda_, inputs)}
    return Formula(add_direction, constants, of_base=True)


def bmm(
    inputs: Inputs, *, weight: Sequence[float], ridge: float = 0.1, anchor: float = 1.0
) -> Formula:
    """Bayesian Model Merging (arXiv:2605.12843): `wudi` held to an anchor.

    W = A + sum(w_i (W_i - A) G_i) (sum(w_i G_i) + ridge I)^-1, with the G_i of task vectors as in
    `wudi` (the paper's variant without data), and for the anchor A task arithmetic at the weighted
    mean. Other tensors are the anchor's.

    Args:
        inputs: the base and n models.
        weight: n floats, none negative; all zero are the base.
        ridge: a part of the mean eigenvalue of sum(w_i G_i).
        anchor: scale of the anchor's delta.
    """
    return _bmm(None, inputs, weight, ridge, anchor)


def bmm_data(
    inputs: Inputs, *, weight: Sequence[float], ridge: float = 0.1, anchor: float = 1.0
) -> Formula:
    """Bayesian Model Merging (arXiv:2605.12843) with the Gram matrices of activations.

    Args:
        inputs: the base and n models, and the statistic "gram".
        weight: as for `bmm`.
        ridge: likewise.
        anchor: likewise.
    """
    return _bmm("gram", inputs, weight, ridge, anchor)


def _bmm(
    kind: str | None, inputs: Inputs, weight: Sequence[float], ridge: float, anchor: float
) -> Formula:
    total = sum(weight)
    shares = [w / total if total else 0.0 for w in weight]
    scale = {"weight": numbers(shares, inputs), "scale": numbers(anchor, inputs)}
    if not total or not _is_regressed(inputs):
        return Formula(add_deltas, scale, heavy=True)
    if kind is not None and _grams(kind, inputs) is None:
        return Formula(add_deltas, scale, heavy=True)

    def solved(deltas: Sequence[Tensor]) -> Spectrum:
        grams = (_own_grams(deltas) if kind is None else _grams(kind, inputs)) or []
        weighted = [share * gram.double() for share, gram in zip(shares, grams, strict=True)]
        # (W_i - A) G_i for any scale of the anchor
        whole = sum_of([d @ gram for d, gram in zip(deltas, weighted, strict=True)])
        numerators = whole, scaled_sum(deltas, shares)
        exact_to = _STORED if kind else _computed(whole.shape[1])
        return Spectrum.of(sum_of(weighted), numerators, exact_to=exact_to)

    def compute() -> Spectrum:
        # a Gram matrix of activations lies in no space of task vectors
        return solved(_whole(inputs)) if kind else _of_task_vectors(inputs, solved)

    spectrum = _recalled(inputs, f"bmm {kind}", shares, compute)
    whole, centre = spectrum.numerators
    numerator = whole - anchor * centre * spectrum.values.float()
    delta = inputs.by_input(_ridged(spectrum, ridge, numerator)).to(inputs.device)
    return Formula(add_to_anchor, {**scale, "delta": ByRow(delta)}, heavy=True)


def mean(base: Tensor | None, models: Sequence[Tensor], *, weight: Tensor) -> Tensor:
    """sum(w_i W_i), with `weight` of shape (n,)."""
    return scaled_sum(models, weight)


def add_to_mean(
    base: Tensor | None, models: Sequence[Tensor], *, weight: Tensor, delta: Tensor
) -> Tensor:
    """sum(w_i W_i) + D."""
    return mean(base, models, weight=weight) + delta


def add_to_anchor(
    base: Tensor, models: Sequence[Tensor], *, weight: Tensor, scale: Tensor, delta: Tensor
) -> Tensor:
    """W0 + scale sum(w_i T_i) + D."""
    return add_deltas(base, models, weight=weight, scale=scale) + delta


def _recalled(
    inputs: Inputs, what: str, shares: Sequence[float], compute: Callable[[], Spectrum]
) -> Spectrum:
    """Recall the spectrum of equal weights; one candidate's own are not met again."""
    return inputs.recall(what, compute) if len(set(shares)) == 1 else compute()


def _is_regressed(inputs: Inputs) -> bool:
    return inputs.is_matrix and bool(inputs.n_entries)


def _grams(kind: str, inputs: Inputs) -> list[Tensor] | None:
    """Give each model's Gram matrix on the CPU; None where a tensor has none."""
    if not _is_regressed(inputs):
        return None
    found = [inputs.statistic(kind, i) for i in range(len(inputs.models))]
    grams = [gram.float().cpu() for gram in found if gram is not None]
    return grams if len(grams) == len(found) else None


def _of_task_vectors(inputs: Inputs, solved: Callable[[Sequence[Tensor]], Spectrum]) -> Spectrum:
    """Solve what follows from task vectors alone, of adapters by their small cores.

    Args:
        inputs: the base and n models.
        solved: of task vectors, or their cores, float64 with a column for each input.
    """
    if inputs.factors is None:
        return solved(_whole(inputs))
    space = CoreSpace.of([inputs.by_input(part) for part in inputs.factors])
    return solved(space.cores).outside(space)


def _whole(inputs: Inputs) -> list[Tensor]:
    return [inputs.by_input(delta).double() for delta in task_vectors(inputs)]


def _computed(n_columns: int) -> float:
    """Bound a float64 Gram matrix's rounding, as a part of its largest eigenvalue."""
    return n_columns * torch.finfo(torch.float64).eps


def _own_grams(deltas: Sequence[Tensor]) -> list[Tensor]:
    """T_i^T T_i / |T_i|^2; zero where there is no task vector."""
    grams = []
    for delta in deltas:
        gram = delta.T @ delta
        trace = gram.trace()
        grams.append(torch.where(trace == 0, gram, gram / trace))
    return grams


def _ridged(spectrum: Spectrum, ridge: float, numerator: Tensor | None = None) -> Tensor:
    values = spectrum.values
    numerator = spectrum.numerators[0] if numerator is None else numerator
    return spectrum.solve(numerator, values + ridge * spectrum.mean)


def _inverse_root(values: Tensor) -> Tensor:
    """values^-1/2; zero where there is nothing."""
    return torch.where(values > 0, values.clamp(min=0).rsqrt(), 0.0)
