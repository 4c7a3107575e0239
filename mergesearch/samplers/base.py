"""The row of a sampler: how it is made, and what it can search."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergesearch.plugins import check_reference, imported

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    Factory = Callable[[int, int, int], BaseSampler]


@dataclass(frozen=True)
class Sampler:
    """One of Optuna's samplers, or one of the same interface.

    Optuna stores no generator's state, so each trial has a sampler of its own, which must draw the
    same whenever it is made with the same numbers for a study with the same trials: a search that
    was killed at any moment then goes on as it would have.

    >>> from mergesearch.samplers import SAMPLERS
    >>> SAMPLERS["cmaes"].several_objectives
    False
    >>> SAMPLERS["random"].make(seed=0, n_before=3, n_startup=10)  # doctest: +ELLIPSIS
    <optuna.samplers._random.RandomSampler object at ...>
    """

    #: A function of the study's seed, how many trials have ended, and how many are drawn at random
    #: before a sampler learns from them; or where it is: "module:function", imported at its first
    #: use, so that the table needs no Optuna.
    factory: "Factory | str"
    #: Whether it takes several objectives.
    several_objectives: bool = True
    #: Whether it draws from spaces with several methods; one that draws categorical choices at
    #: random would search none of them.
    conditional: bool = True
    #: Whether it learns by generation, to which Optuna adds only the trials that it drew.
    generational: bool = False

    def __post_init__(self) -> None:
        check_reference("factory", self.factory)

    def make(self, seed: int, n_before: int, n_startup: int) -> "BaseSampler":
        """Make the sampler of one trial.

        Args:
            seed: the study's.
            n_before: trials that have ended.
            n_startup: trials that are drawn at random before it learns from them, if it can learn.

        Raises:
            InputError: its function cannot be imported.
        """
        from optuna.exceptions import ExperimentalWarning

        factory = self.factory
        if isinstance(factory, str):
            factory = imported(factory, "sampler")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return factory(seed, n_before, n_startup)
