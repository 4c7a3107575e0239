"""Statistics of what parents compute on prompts, as merges look them up."""

from typing import Protocol

from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.recipe import ModelRef


class Statistics(Protocol):
    """Statistics that are computed before a merge; any number of threads may read."""

    def key(self, kind: str, model: ModelRef) -> str:
        """Name what a model's statistics of a kind follow from.

        Raises:
            InputError: they were not computed.
        """

    def read(self, kind: str, model: ModelRef, name: str) -> Tensor | None:
        """Read a statistic of one tensor on the CPU; None where the tensor has none.

        Raises:
            InputError: they were not computed, or their file is gone.
        """


class NoStatistics:
    """Knows of no model: nothing was computed."""

    def key(self, kind: str, model: ModelRef) -> str:
        """Refuse."""
        raise _not_computed(kind, model)

    def read(self, kind: str, model: ModelRef, name: str) -> Tensor | None:
        """Refuse."""
        raise _not_computed(kind, model)


def _not_computed(kind: str, model: ModelRef) -> InputError:
    return InputError(
        f"the merge looks at the {kind} of {model}, which is computed from prompts first; use "
        "`with mergesearch.calibration.calibrated(recipe, parents):`"
    )
