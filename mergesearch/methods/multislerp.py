"""Spherical interpolation of many models: barycentric, and the Karcher mean."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mergesearch.errors import CandidateError
from mergesearch.methods.combine import span
from mergesearch.methods.formula import Formula
from mergesearch.methods.gram import gram, norm, span_of
from mergesearch.methods.inputs import Inputs


def multislerp(
    inputs: Inputs,
    *,
    weight: Sequence[float],
    normalize_weights: bool = True,
    eps: float = 1e-8,
) -> Formula:
    """Barycentric interpolation on a hypersphere, of models or of task vectors.

    The unit vectors' weighted mean, projected to the sphere, is the point at which they are
    projected to the tangent plane; their weighted mean there is taken back by the exponential map
    and given the weighted mean of the norms. (mergekit's method.) All of it happens in the span
    of the inputs, so that it takes no more of them than their inner products.

    Args:
        inputs: n models, and a base or none.
        weight: n floats.
        normalize_weights: divide the weights by their sum.
        eps: what is added to norms against division by zero.

    Raises:
        CandidateError: three unit vectors or more have a weighted mean of zero, though they are
            not all zero themselves.
    """
    n = len(inputs.models)
    if n == 1:
        # alone it is what it is, whatever its weight
        return Formula(span, span_of(inputs, [1.0]), heavy=True)
    products = gram(inputs)
    total = sum(weight) if normalize_weights else 1.0
    weights = torch.tensor(weight, dtype=torch.float64) / total
    norms = products.diagonal().clamp(min=0).sqrt()
    # vectors of the span, as coefficients of the unit vectors
    units = products / torch.outer(norms + eps, norms + eps)
    length = norm(float(weights @ units @ weights))
    if length < eps:
        if n == 2 or float(norms.max()) < eps:
            return Formula(span, span_of(inputs, weights.tolist()), heavy=True)
        raise CandidateError(
            f"{inputs.name}: multislerp is undefined where the weighted mean of the directions "
            f"is zero, got weights {list(weight)}; change a weight"
        )
    mean = weights / length
    dots = units @ mean
    tangent = weights - float(weights @ dots) * mean
    turn = norm(float(tangent @ units @ tangent)) + eps
    point = mean * math.cos(turn) + tangent * (math.sin(turn) / turn)
    coefficients = point * float(weights @ norms) / (norms + eps)
    return Formula(span, span_of(inputs, coefficients.tolist()), heavy=True)


def karcher(inputs: Inputs, *, max_iter: int = 10, tol: float = 1e-5) -> Formula:
    """Karcher mean on the hypersphere (arXiv:2603.04972), times the mean of the norms.

    Starts at the normalized mean of the unit vectors and follows the mean of their logarithms
    until that is shorter than `tol`. Models with a norm of at most `tol` have no direction.

    Args:
        inputs: n models.
        max_iter: steps at most.
        tol: the length of a step, and the angle, below which it is zero.
    """
    n = len(inputs.models)
    if n == 1:
        return Formula(span, span_of(inputs, [1.0]), heavy=True)
    products = gram(inputs)
    norms = products.diagonal().clamp(min=0).sqrt()
    valid = norms > tol
    if not valid.any():
        return Formula(span, span_of(inputs, [0.0] * n), heavy=True)
    units = products / torch.outer(norms, norms)
    units = torch.where(torch.outer(valid, valid), units, 0.0)
    share = valid.double() / valid.sum()
    mean = _karcher_mean(units, share, max_iter, tol)
    coefficients = torch.where(valid, mean * norms.mean() / norms, 0.0)
    return Formula(span, span_of(inputs, coefficients.tolist()), heavy=True)


def _karcher_mean(units: Tensor, share: Tensor, max_iter: int, tol: float) -> Tensor:
    """Mean as coefficients of the unit vectors, whose inner products are `units`."""

    def length(x: Tensor) -> float:
        return norm(float(x @ units @ x))

    mean = share.clone()
    if length(mean) < tol:  # they cancel: start at the first that has a direction
        mean = torch.zeros_like(share)
        mean[int(share.nonzero()[0])] = 1.0
    else:
        mean = mean / length(mean)
    for _ in range(max_iter):
        tangent = torch.zeros_like(mean)
        for i in share.nonzero().flatten().tolist():
            dot = max(-1.0, min(1.0, float(units[i] @ mean)))
            angle = math.acos(dot)
            if angle >= tol:
                step = float(share[i]) * angle / math.sin(angle)
                tangent = tangent - step * dot * mean
                tangent[i] += step
        turn = length(tangent)
        if turn < tol:
            break
        mean = math.cos(turn) * mean + math.sin(turn) / turn * tangent
        if (long := length(mean)) > tol:
            mean = mean / long
    return mean
