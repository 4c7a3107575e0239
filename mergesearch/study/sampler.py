"""Optuna's samplers by name, each trial with a seed of its own."""

import hashlib
import warnings

import optuna
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from mergesearch.space import SearchSpace

#: Trials up to which a Gaussian process is the better teacher, and fast enough.
_GP_TRIALS = 250
#: Of the evolutionary samplers: few, since a candidate costs minutes.
_POPULATION = 20


def sampler_of(space: SearchSpace) -> str:
    """The name of the sampler of a space, `auto` resolved.

    One method has the same parameters in every trial, which a Gaussian process learns from the
    fewest trials; where methods are a choice, or trials are many, it is TPE. Several objectives
    make no difference: both handle them.
    """
    if space.search.sampler != "auto":
        return space.search.sampler
    one = len(space.methods) == 1
    return "gp" if one and space.search.trials <= _GP_TRIALS else "tpe"


def sampler_for(name: str, seed: int, number: int) -> BaseSampler:
    """The sampler of one trial.

    Optuna stores no generator's state, so each trial's is seeded by (seed, number): a resumed
    study then goes on as it would have, and does not repeat its first draws.

    Args:
        name: one of `SAMPLERS` but "auto".
        seed: the study's.
        number: the trial's.
    """
    own = draw(seed, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                # groups: parameters of a method are modelled on the trials that chose it
                return TPESampler(seed=own, group=True)
            case "gp":
                return GPSampler(seed=own, warn_independent_sampling=False)
            case "cmaes":
                return CmaEsSampler(seed=own, warn_independent_sampling=False)
            case "nsga2":
                return NSGAIISampler(seed=own, population_size=_POPULATION)
            case "nsga3":
                return NSGAIIISampler(seed=own, population_size=_POPULATION)
            case "qmc":  # one sequence for all trials, each taking the next of its points
                return QMCSampler(
                    seed=draw(seed, 0),
                    scramble=True,
                    independent_sampler=RandomSampler(seed=own),
                    warn_independent_sampling=False,
                )
            case _:
                return RandomSampler(seed=own)


def draw(seed: int, number: int) -> int:
    """The seed of one trial."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
