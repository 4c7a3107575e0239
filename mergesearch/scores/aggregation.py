"""Aggregations of documents' values to a task's: lm-eval's, and tasks' own."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergesearch.errors import InputError

Floats = NDArray[np.float64]


def _weighted_mean(values: Floats) -> Floats:
    return values[..., 0].sum(-1) / values[..., 1].sum(-1)


#: lm-eval's aggregations that numpy computes for many resamples at once. Values have shape
#: (resamples, documents), or (resamples, documents, 2) where a value is a (sum, weight) pair.
VECTORISED: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda values: values.mean(-1),
    "perplexity": lambda values: np.exp(-values.mean(-1)),
    "weighted_perplexity": lambda values: np.exp(-_weighted_mean(values)),
    "bits_per_byte": lambda values: -_weighted_mean(values) / math.log(2),
}

#: Aggregation functions of tasks that bring their own, filled in as they are built.
OWN_AGGREGATIONS: dict[str, Callable[[Sequence[Any]], float]] = {}


def aggregation_function(name: str) -> Callable[[Sequence[Any]], float]:
    """Look up an aggregation by its name: lm-eval's, or a task's own.

    Raises:
        InputError: it is a task's own, and that task is not built in this process.
    """
    if name in OWN_AGGREGATIONS:
        return OWN_AGGREGATIONS[name]
    if name in VECTORISED:
        vectorised = VECTORISED[name]
        return lambda values: float(vectorised(np.asarray(values, dtype=float)))
    from lm_eval.api import metrics  # noqa: F401  registers the aggregations
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    if name not in AGGREGATION_REGISTRY:
        raise InputError(
            f"the aggregation {name!r} is a task's own function, so its scores can be resampled "
            f"only where that task is built; build its suite first"
        )
    return AGGREGATION_REGISTRY[name]
