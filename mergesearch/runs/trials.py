"""An ended trial: one record that is stored, shown and told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: The fields that are an entry of a run's record; Optuna's study has all of them.
_STORED = (
    "number",
    "method",
    "recipe_hash",
    "score",
    "error",
    "share",
    "objectives",
    "feasible",
)


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has ended: what was tried, how it did, and what it cost.

    The record of a run keeps the fields up to `feasible`; the others are Optuna's to keep, and
    have their defaults in a trial that was read from the record alone.

    >>> from mergesearch.searching import TrialRecord
    >>> trial = TrialRecord(7, "ties (refined)", "6f2c", score=0.53, violations={"size <= 1K": 0.2})
    >>> trial.is_whole, trial.broken
    (True, ('size <= 1K',))
    """

    number: int
    #: The method, and the name of a starting point or "refined".
    method: str
    #: None where the candidate failed.
    recipe_hash: str | None
    #: Of the suite; of a candidate that was stopped, what it would have reached.
    score: float | None
    error: str | None = None
    #: Share of the documents that it was scored on; below 1 the candidate was stopped early.
    share: float = 1.0
    #: Values by the names of the search's objectives; none where the candidate failed.
    objectives: Mapping[str, float] = field(default_factory=dict)
    #: Whether it keeps the search's constraints.
    feasible: bool = True
    #: By how much each constraint is broken, as a share of its bound; none where it is 0 or less.
    violations: Mapping[str, float] = field(default_factory=dict)
    #: Documents that the model answered for it; 0 where the record knew the answers.
    n_documents: int = 0
    seconds: float = 0.0
    #: Workers that had trials beside each other.
    n_workers: int = 1
    #: Whether it is a step of the refinement of the best.
    refines: bool = False
    #: The point of the search space, and what each of its parameters may be.
    params: Mapping[str, Any] = field(default_factory=dict)
    domains: "Mapping[str, BaseDistribution]" = field(default_factory=dict)

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of a run's record."""
        return cls(**entry)

    def as_entry(self) -> dict[str, Any]:
        """Return what a run's record keeps."""
        return {name: getattr(self, name) for name in _STORED} | {
            "objectives": dict(self.objectives)
        }

    @property
    def is_whole(self) -> bool:
        """If it has a score that was measured on all documents, and not projected."""
        return self.score is not None and self.share == 1

    @cached_property
    def values(self) -> tuple[float, ...]:
        """Its values in the search's objectives, in their order."""
        return tuple(self.objectives.values())

    @property
    def broken(self) -> tuple[str, ...]:
        """The constraints that it does not keep."""
        return tuple(name for name, violation in self.violations.items() if violation > 0)
