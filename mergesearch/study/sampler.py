"""Optuna's samplers by name, each trial with a seed of its own."""

import hashlib
import warnings

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler


def sampler_for(name: str, seed: int, number: int) -> BaseSampler:
    """The sampler of one trial.

    Optuna stores no generator's state, so each trial's is seeded by (seed, number): a resumed
    study then goes on as it would have, and does not repeat its first draws.

    Args:
        name: "tpe", "cmaes" or "random".
        seed: the study's.
        number: the trial's.
    """
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    own = int.from_bytes(digest[:4], "big")
    if name == "random":
        return RandomSampler(seed=own)
    if name == "cmaes":
        return CmaEsSampler(seed=own, warn_independent_sampling=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # groups: parameters of a method are modelled on the trials that chose it
        return TPESampler(seed=own, group=True)
