"""The goals of a search: its objectives, and the constraints of its winner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergesearch.config import unknown
from mergesearch.errors import CandidateError, InputError
from mergesearch.objectives import OBJECTIVES, Direction, Measured, objective_of
from mergesearch.recipe import Recipe
from mergesearch.scores import Scores
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.space import BEST_PARENT, Constraint, SearchSettings, SearchSpace

if TYPE_CHECKING:
    from mergesearch.evaluation import Evaluator


@dataclass(frozen=True)
class Result:
    """A candidate in numbers: its objectives in their order, and constraints by name."""

    values: tuple[float, ...]
    #: By how much each constraint is broken; none where it is 0 or less.
    violations: Mapping[str, float]
    #: The same as shares of the bounds, by which a size and a score can be added.
    shares: Mapping[str, float]

    @property
    def feasible(self) -> bool:
        """If every constraint is kept."""
        return not self.broken

    @property
    def broken(self) -> tuple[str, ...]:
        """The constraints that are not kept, each with by how much."""
        return tuple(f"{name} by {v:.4g}" for name, v in self.violations.items() if v > 0)


class Goals:
    """The objectives and constraints of a search, in numbers.

    Args:
        settings: name them.
        bounds: of the constraints, by name, as `score_bounds` finds them.
        n_parameters: counts the parameters of a recipe's model.
    """

    def __init__(
        self,
        settings: SearchSettings,
        bounds: Mapping[str, float],
        n_parameters: Callable[[Recipe], int],
    ) -> None:
        self.names = settings.objectives
        self.objectives = tuple(objective_of(name) for name in self.names)
        self._constraints = {str(c): (c, objective_of(c.what)) for c in settings.constraints}
        self._bounds = bounds
        self._n_parameters = n_parameters
        bounded = (objective for _, objective in self._constraints.values())
        self._counts_parameters = not all(o.from_documents for o in (*self.objectives, *bounded))

    @property
    def directions(self) -> list[Direction]:
        """Optuna's words; whatever its metric, a task's value is the better the higher."""
        return directions(self.names)

    def measured(self, recipe: Recipe, scores: Scores) -> Measured:
        """Gather what objectives ask of a candidate; parameters only where one does."""
        n_parameters = self._n_parameters(recipe) if self._counts_parameters else 0
        return Measured(recipe, scores, n_parameters)

    def result(self, candidate: Measured) -> Result:
        """Measure a candidate in every objective and constraint."""
        values = tuple(float(objective.measure(candidate)) for objective in self.objectives)
        violations = {name: self._violation(name, candidate) for name in self._constraints}
        shares = {name: v / (abs(self._bounds[name]) or 1) for name, v in violations.items()}
        return Result(values, violations, shares)

    def dominates(self, ours: Sequence[float], theirs: Sequence[float]) -> bool:
        """Say if values are as good as others in every objective, and better in one."""
        pairs = zip(self.objectives, ours, theirs, strict=True)
        leads = [objective.sign * (a - b) for objective, a, b in pairs]
        return min(leads) >= 0 and max(leads) > 0

    def _violation(self, name: str, candidate: Measured) -> float:
        constraint, objective = self._constraints[name]
        lead = objective.report(candidate) - self._bounds[name]
        return lead if constraint.relation == "<=" else -lead


def goals_of(space: SearchSpace, candidates: CandidateEvaluator, *, full: bool = False) -> Goals:
    """Score the parents that a space's constraints name, and make its goals.

    Args:
        space: names the objectives and constraints.
        candidates: scores the parents, and counts parameters.
        full: compare with parents on the whole search split, whatever the suite's limits.

    Raises:
        InputError: none of the parents that a constraint names has a finite score.
    """
    return Goals(space.search, score_bounds(space, candidates, full=full), candidates.n_parameters)


def score_bounds(
    space: SearchSpace, candidates: CandidateEvaluator, *, full: bool = False
) -> dict[str, float]:
    """Find the bounds of constraints, by name; parents that they name are scored.

    The arguments and errors are those of `goals_of`.
    """
    return {str(c): _bound(c, space, candidates, full=full) for c in space.search.constraints}


def _bound(
    constraint: Constraint, space: SearchSpace, candidates: CandidateEvaluator, *, full: bool
) -> float:
    if not isinstance(constraint.bound, str):
        return constraint.bound
    named = space.parents
    if constraint.bound != BEST_PARENT:
        named = {constraint.bound: named[constraint.bound]}
    values, failures = [], []
    for name, ref in named.items():
        try:
            values.append(_reported(constraint.what, space.soup([ref]), candidates, full=full))
        except CandidateError as error:  # it cannot be the best of them
            failures.append(f"{name} has no score: {error}")
    if not values:
        raise InputError(f"search.constraints: {constraint}: {'; '.join(failures)}; take a number")
    return max(values) if constraint.relation == ">=" else min(values)


def _reported(what: str, recipe: Recipe, candidates: CandidateEvaluator, *, full: bool) -> float:
    """Measure a parent in one objective, scored only where documents decide that."""
    objective = objective_of(what)
    if objective.from_documents:
        return objective.report(Measured(recipe, candidates.score(recipe, full=full).scores, 0))
    return float(objective.report(Measured(recipe, Scores(()), candidates.n_parameters(recipe))))


def distance(shares: Mapping[str, float]) -> float:
    """Sum up how far a candidate is from keeping constraints, in shares of bounds."""
    return sum(max(0.0, share) for share in shares.values())


def directions(names: Sequence[str]) -> list[Direction]:
    """Return Optuna's words for the directions of objectives."""
    return [objective_of(name).direction for name in names]


def check_goals(space: SearchSpace, evaluator: "Evaluator") -> None:
    """Refuse goals that name no task, and lower bounds of what is to be low.

    Raises:
        InputError: naming the tasks that there are, or the constraint.
    """
    tasks = [name for task in evaluator.tasks() for name in (task.id.task, task.id.group) if name]
    named = {
        "objectives": space.search.objectives,
        "constraints": [constraint.what for constraint in space.search.constraints],
    }
    for key, names in named.items():
        for name in names:
            if name not in tasks and name not in OBJECTIVES:
                known = dict.fromkeys([*OBJECTIVES, *tasks])
                raise InputError(f"search.{key}: {unknown('objective', name, known)}")
    for constraint in space.search.constraints:
        named_tasks = [t for t in evaluator.tasks() if constraint.what in (t.id.task, t.id.group)]
        if constraint.relation == ">=" and any(not t.id.higher_is_better for t in named_tasks):
            raise InputError(
                f"search.constraints: {constraint}: lower is better in {constraint.what}; write <="
            )
