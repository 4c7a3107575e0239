"""Optuna's samplers by name, each trial with a seed of its own."""

import copy
import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from mergesearch.searching.study import finished, was_queued
from mergesearch.space import SearchSpace

#: Trials up to which `auto` takes a Gaussian process, whose cost grows fast with them.
_GP_TRIALS = 250
#: Trials of each method before a sampler learns.
_STARTUP = 10
#: Of the evolutionary samplers: few, since a candidate costs minutes.
_POPULATION = 20
#: Samplers that learn from trials by generation, to which Optuna adds only those that they drew.
GENERATIONAL = ("cmaes", "nsga2", "nsga3")


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


def startup_of(space: SearchSpace) -> int:
    """Trials that are drawn at random before `tpe` and `gp` learn from them.

    Ten for each method of the space: a sampler that learns sooner settles on the method that was
    lucky first. No more than a quarter of the trials go into it, but for the first ten.
    """
    if space.search.startup is not None:
        return space.search.startup
    return max(_STARTUP, min(_STARTUP * len(space.methods), space.search.trials // 4))


def sampler_for(name: str, seed: int, n_before: int, n_startup: int = _STARTUP) -> BaseSampler:
    """The sampler of one trial.

    Optuna stores no generator's state, so each trial's is seeded by the study's seed and how many
    trials have ended before. The point that it draws follows from these and from those trials, so
    a search that was killed at any moment goes on as it would have.

    All but `cmaes` take several objectives, and all but `cmaes`, `qmc` and `random` learn from the
    constraints. `tpe` learns what a method's own parameters do from the trials that chose it; the
    others learn, or spread, only the parameters that all trials have (`qmc`: that the first has)
    and draw the rest at random. A child of `nsga2` or `nsga3` may be the copy of a parent, which
    costs a trial but no document.

    Args:
        name: one of `SAMPLERS` but "auto".
        seed: the study's.
        n_before: trials that have ended.
        n_startup: trials before `tpe` and `gp` learn from them.
    """
    own = draw(seed, n_before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                # groups: parameters of a method are modelled on the trials that chose it
                return TPESampler(
                    seed=own, multivariate=True, group=True, n_startup_trials=n_startup
                )
            case "gp":
                return GPSampler(
                    seed=own, n_startup_trials=n_startup, warn_independent_sampling=False
                )
            case "cmaes":
                return _Cmaes(seed=own, warn_independent_sampling=False)
            case "nsga2":
                return _Nsga2(seed=own, population_size=_POPULATION)
            case "nsga3":
                return _Nsga3(seed=own, population_size=_POPULATION)
            case "qmc":  # one sequence for all trials, each taking the next of its points
                return _Qmc(
                    seed=draw(seed, 0),
                    scramble=True,
                    independent_sampler=RandomSampler(seed=own),
                    warn_independent_sampling=False,
                )
            case _:
                return RandomSampler(seed=own)


def draw(seed: int, n_before: int) -> int:
    """The seed of one trial."""
    digest = hashlib.sha256(f"{seed}/{n_before}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


class _Cmaes(CmaEsSampler):
    """CMA-ES for which a trial's number is no part of its seed: a kill leaves a gap in them."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        unnumbered = copy.copy(trial)
        unnumbered.number = 0
        return super().sample_relative(study, unnumbered, search_space)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Do nothing: Optuna's own warns after each trial that constraints teach it nothing."""


class _ByNumber(BaseGASampler):
    """Parents in the order of their numbers, be they selected now or by a process before.

    Optuna keeps which trials they are, and for the first child alone their order, too.
    """

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        parents = super().get_parent_population(study, generation)
        return sorted(parents, key=lambda trial: trial.number)


class _Nsga2(_ByNumber, NSGAIISampler):
    """NSGA-II that a kill does not change."""


class _Nsga3(_ByNumber, NSGAIIISampler):
    """NSGA-III that a kill does not change."""


class _Qmc(QMCSampler):
    """One sequence, of which a trial takes the point after those of the trials that have ended."""

    def _find_sample_id(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution]
    ) -> int:
        # Optuna's own counts what it drew, and so leaves out the point of a trial that was killed
        return sum(not was_queued(trial) for trial in finished(study))
