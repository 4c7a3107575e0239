"""The cases of the methods by name, as the contract draws them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from mergesearch.methods import METHODS
from mergesearch.testing import Case
from mergesearch.testing import cases as cases_of
from mergesearch.testing.cases import RANGES, SHAPES, Shape

#: What is drawn for parameters that a search leaves alone.
OWN_RANGES = {"scale": (-1.0, 2.0), "max_iter": (0, 12), "common": (0.1, 1.0)}
#: The methods that have no result where directions cancel.
PARTIAL = {"multislerp"}


def having(parameter: str) -> list[str]:
    """The methods with such a parameter."""
    return [name for name, method in METHODS.items() if method.parameter(parameter)]


def cases(
    name: str, shapes: Sequence[Shape] = SHAPES, *, grid: bool | None = None
) -> st.SearchStrategy[Case]:
    """Cases of the method of that name; see `mergesearch.testing.cases`."""
    return cases_of(
        METHODS[name],
        shapes,
        grid=grid,
        ranges={**RANGES, **OWN_RANGES},
        partial=name in PARTIAL,
    )
