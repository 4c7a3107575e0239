"""NSGA-II (doi:10.1109/4235.996017) and NSGA-III (doi:10.1109/TEVC.2013.2281535)."""

import optuna
from optuna.samplers import BaseGASampler, NSGAIIISampler, NSGAIISampler
from optuna.trial import FrozenTrial

from mergesearch.samplers.seeds import seed_of_trial

#: Candidates of a generation: few, since one costs minutes.
_POPULATION = 20


def make_nsga2(seed: int, n_before: int, n_startup: int) -> NSGAIISampler:
    """Make NSGA-II; a child may copy a parent, which costs a trial but no document."""
    return _Nsga2(seed=seed_of_trial(seed, n_before), population_size=_POPULATION)


def make_nsga3(seed: int, n_before: int, n_startup: int) -> NSGAIIISampler:
    """Make NSGA-III; a child may copy a parent, which costs a trial but no document."""
    return _Nsga3(seed=seed_of_trial(seed, n_before), population_size=_POPULATION)


class _ByNumber(BaseGASampler):
    """Parents in the order of their numbers, whichever process selected them.

    Optuna keeps which trials they are, and for the first child alone their order, too.
    """

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        parents = super().get_parent_population(study, generation)
        return sorted(parents, key=lambda trial: trial.number)


class _Nsga2(_ByNumber, NSGAIISampler):
    """NSGA-II that a kill does not change."""


class _Nsga3(_ByNumber, NSGAIIISampler):
    """NSGA-III that a kill does not change."""
