"""Quasi-Monte Carlo: the points of a scrambled Sobol sequence."""

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import QMCSampler, RandomSampler

from mergesearch.samplers.seeds import seed_of_trial
from mergesearch.samplers.trials import finished, was_queued


def make(seed: int, n_before: int, n_startup: int) -> QMCSampler:
    """Make a sampler that spreads the first trial's parameters, and draws the others.

    There is one sequence for all trials, each of which takes the next of its points.
    """
    return _Qmc(
        seed=seed_of_trial(seed, 0),
        scramble=True,
        independent_sampler=RandomSampler(seed=seed_of_trial(seed, n_before)),
        warn_independent_sampling=False,
    )


class _Qmc(QMCSampler):
    """One sequence, of which a trial takes the point after those of ended trials."""

    def _find_sample_id(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution]
    ) -> int:
        # Optuna's own counts what it drew, and so leaves out the point of a trial that was killed
        return sum(not was_queued(trial) for trial in finished(study))
