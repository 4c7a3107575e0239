"""The row of an objective: its measure, its direction, and its look in tables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mergesearch.recipe import Recipe

if TYPE_CHECKING:
    from mergesearch.scores import Scores

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Measured:
    """A candidate as objectives see it."""

    recipe: Recipe
    #: On all or some documents; none where an objective needs none.
    scores: "Scores"
    #: Of its model as the checkpoint has them; 0 where no objective asks for them.
    n_parameters: int


def _three_decimals(value: float) -> str:
    return f"{value:.3f}"


@dataclass(frozen=True)
class Objective:
    """A number of every candidate that a search maximizes or minimizes, or bounds.

    >>> from mergesearch.objectives import OBJECTIVES, Objective
    >>> OBJECTIVES["size"].direction
    'minimize'
    >>> layers = Objective(
    ...     measure=lambda candidate: len(candidate.recipe.slices), direction="minimize"
    ... )
    >>> layers.from_documents
    False
    """

    #: Its value of a candidate.
    measure: Callable[[Measured], float]
    direction: Direction = "maximize"
    #: The scores that decide it, of all of a candidate's, where documents decide it: their total
    #: is then its value, and racing may tell from some of the documents that a rival is ahead.
    part: "Callable[[Scores], Scores] | None" = None
    #: The value as a user reads it, where that is another: a task's in which lower is better.
    reported: Callable[[Measured], float] | None = None
    #: Title of its column; None for its name.
    header: str | None = None
    #: Its value for people.
    show: Callable[[float], str] = _three_decimals
    #: Whether its values are whole numbers.
    whole: bool = False

    @property
    def from_documents(self) -> bool:
        """If documents decide it; else it is known of a model that has answered none."""
        return self.part is not None

    @property
    def sign(self) -> int:
        """The factor that makes higher values better."""
        return -1 if self.direction == "minimize" else 1

    def report(self, candidate: Measured) -> float:
        """Measure a candidate in the terms in which a user reads and bounds the objective."""
        return (self.reported or self.measure)(candidate)
