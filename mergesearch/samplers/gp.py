"""A Gaussian process and the expected improvement of its log."""

from optuna.samplers import GPSampler

from mergesearch.samplers.seeds import seed_of_trial


def make(seed: int, n_before: int, n_startup: int) -> GPSampler:
    """Make a sampler that learns what all trials have, and draws other parameters."""
    return GPSampler(
        seed=seed_of_trial(seed, n_before),
        n_startup_trials=n_startup,
        warn_independent_sampling=False,
    )
