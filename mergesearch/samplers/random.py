"""Independent draws, each parameter evenly over its range."""

from optuna.samplers import RandomSampler

from mergesearch.samplers.seeds import seed_of_trial


def make(seed: int, n_before: int, n_startup: int) -> RandomSampler:
    """Make a sampler that learns nothing."""
    return RandomSampler(seed=seed_of_trial(seed, n_before))
