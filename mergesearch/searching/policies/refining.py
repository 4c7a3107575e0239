"""Local refinement: small steps from the best, near the end of a search."""

import math
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from mergesearch.searching.history import History
from mergesearch.searching.policies.samplers import draw
from mergesearch.searching.study import REFINES

#: Standard deviation of the first step, as a share of a parameter's range.
_STEP = 0.1
#: By what a step shrinks with each trial that did not find a better one, and its least.
_SHRINK, _LEAST_STEP = 0.9, 0.01
#: Parameters that a step changes, on average.
_CHANGED = 6


def neighbour(history: History, seed: int) -> dict[str, Any] | None:
    """Parameters near those of one of the best trials; None where it has none that can move.

    Args:
        history: with at least one trial that was scored on all documents.
        seed: the study's; with the number of trials it decides the step.
    """
    generator = np.random.default_rng([draw(seed, len(history.trials)), 1])
    trial = history.front[generator.integers(len(history.front))]
    step = max(_LEAST_STEP, _STEP * _SHRINK ** _n_failures(history, trial))
    movable = [
        name
        for name, domain in trial.distributions.items()
        if isinstance(domain, FloatDistribution | IntDistribution) and not domain.single()
    ]
    if not movable:
        return None
    chosen = generator.random(len(movable)) < _CHANGED / len(movable)
    chosen[generator.integers(len(movable))] = True
    params = dict(trial.params)
    for name, changes in zip(movable, chosen, strict=True):
        if changes:
            params[name] = _moved(trial, name, step * generator.standard_normal())
    return params


def _moved(trial: FrozenTrial, name: str, step: float) -> float | int:
    """A parameter one step away, reflected at the ends of its range."""
    domain = trial.distributions[name]
    assert isinstance(domain, FloatDistribution | IntDistribution)
    span = domain.high - domain.low
    where = (trial.params[name] - domain.low) / span + step
    where = abs(where) % 2
    value = domain.low + span * min(where, 2 - where)
    if isinstance(domain, FloatDistribution):
        return float(value)
    whole = round(value)
    if whole == trial.params[name]:  # a whole number moves by one at least
        whole += int(math.copysign(1, step))
        if not domain.low <= whole <= domain.high:
            whole = trial.params[name] - int(math.copysign(1, step))
    return int(whole)


def _n_failures(history: History, best: FrozenTrial) -> int:
    """Refinements since the best was found, none of which took its place."""
    return sum(t.number > best.number and REFINES in t.user_attrs for t in history.trials)
