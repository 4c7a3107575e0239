"""A tree of Parzen estimators (arXiv:2304.11127)."""

from optuna.samplers import TPESampler

from mergesearch.samplers.seeds import seed_of_trial


def make(seed: int, n_before: int, n_startup: int) -> TPESampler:
    """Make a sampler that learns a method's parameters from the trials that chose it."""
    return TPESampler(
        seed=seed_of_trial(seed, n_before),
        multivariate=True,
        group=True,
        n_startup_trials=n_startup,
    )
