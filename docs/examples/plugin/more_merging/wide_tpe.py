"""Optuna's TPE with a wider notion of good."""

from mergesearch.samplers import seed_of_trial
from optuna.samplers import TPESampler


def make(seed: int, n_before: int, n_startup: int) -> TPESampler:
    """Make the sampler of the trial that comes after `n_before` others."""
    return TPESampler(
        seed=seed_of_trial(seed, n_before),
        multivariate=True,
        group=True,
        n_startup_trials=n_startup,
        gamma=lambda n_trials: max(1, n_trials // 4),
    )
