"""The number of a model's parameters."""

from mergesearch.objectives.base import Measured, Objective


def _n_parameters(candidate: Measured) -> float:
    return candidate.n_parameters


def _in_millions(n_parameters: float) -> str:
    return f"{n_parameters / 1e6:.1f} M"


OBJECTIVE = Objective(
    measure=_n_parameters,
    direction="minimize",
    header="parameters",
    show=_in_millions,
    whole=True,
)
