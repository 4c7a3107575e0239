"""Local refinement: small steps from the best, near the end of a search."""

import math
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from mergesearch.runs import TrialRecord
from mergesearch.samplers import seed_of_trial
from mergesearch.searching.history import History

#: Standard deviation of the first step, as a share of a parameter's range.
_STEP = 0.1
#: By what a step shrinks with each trial that did not find a better one, and its least.
_SHRINK, _LEAST_STEP = 0.9, 0.01
#: Parameters that a step changes, on average.
_CHANGED = 6


def neighbour(history: History, seed: int) -> dict[str, Any] | None:
    """Propose parameters near those of one of the best; None where none can move.

    Args:
        history: with at least one trial that was scored on all documents.
        seed: the study's; with the number of trials it decides the step.
    """
    generator = np.random.default_rng([seed_of_trial(seed, history.n_asked), 1])
    trial = history.front[generator.integers(len(history.front))]
    step = max(_LEAST_STEP, _STEP * _SHRINK ** _n_failures(history, trial))
    movable = [
        name
        for name, domain in trial.domains.items()
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


def _moved(trial: TrialRecord, name: str, step: float) -> float | int:
    """Move a parameter one step, reflected at the ends of its range."""
    domain = trial.domains[name]
    assert isinstance(domain, FloatDistribution | IntDistribution)
    span = domain.high - domain.low
    share = (trial.params[name] - domain.low) / span + step
    share = abs(share) % 2
    value = domain.low + span * min(share, 2 - share)
    if isinstance(domain, FloatDistribution):
        return float(value)
    whole = round(value)
    if whole == trial.params[name]:  # a whole number moves by one at least
        whole += int(math.copysign(1, step))
        if not domain.low <= whole <= domain.high:
            whole = trial.params[name] - int(math.copysign(1, step))
    return int(whole)


def _n_failures(history: History, best: TrialRecord) -> int:
    """Count the refinements since the best was tried, none of which is better."""
    return sum(t.number > best.number and t.refines for t in history.trials)
