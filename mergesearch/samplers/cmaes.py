"""CMA-ES (arXiv:1604.00772)."""

import copy
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial, TrialState

from mergesearch.samplers.seeds import seed_of_trial


def make(seed: int, n_before: int, n_startup: int) -> CmaEsSampler:
    """Make a sampler that learns the numbers that all trials have; it draws the rest."""
    return _Cmaes(seed=seed_of_trial(seed, n_before), warn_independent_sampling=False)


class _Cmaes(CmaEsSampler):
    """CMA-ES without trials' numbers in its seed: a kill leaves a gap in them."""

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
        """Do nothing: Optuna's own warns each time that constraints teach it nothing."""
