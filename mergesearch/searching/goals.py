"""What a search wants: its objectives, and the constraints that its winner must keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergesearch.config import unknown
from mergesearch.errors import CandidateError, InputError
from mergesearch.recipe import ModelRef, Recipe
from mergesearch.scores import Scores
from mergesearch.searching.baselines import soup_of
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.study import Direction
from mergesearch.space import BEST_PARENT, SCORE, SIZE, Constraint, SearchSpace

if TYPE_CHECKING:
    from mergesearch.evaluation import Evaluator


@dataclass(frozen=True)
class Result:
    """What a candidate came to, by the names of objectives and of constraints' quantities."""

    values: tuple[float, ...]
    #: By how much each constraint is broken; none where it is 0 or less.
    violations: Mapping[str, float]
    #: The same as shares of the bounds, by which a size and a score can be added.
    shares: Mapping[str, float]

    @property
    def feasible(self) -> bool:
        """Whether every constraint is kept."""
        return not self.broken

    @property
    def broken(self) -> tuple[str, ...]:
        """The constraints that are not kept, each with by how much."""
        return tuple(f"{name} by {v:.4g}" for name, v in self.violations.items() if v > 0)


class Goals:
    """The objectives and constraints of a space, in numbers.

    Args:
        space: names them.
        judge: scores the parents that constraints name, and counts parameters.
        full: compare with parents on the whole search split, whatever the suite's limits.

    Raises:
        InputError: none of the parents that a constraint names has a finite score.
    """

    def __init__(
        self, space: SearchSpace, judge: CandidateEvaluator, *, full: bool = False
    ) -> None:
        self._full = full
        self.names = space.search.objectives
        self._constraints = space.search.constraints
        self._judge = judge
        self._counts_size = SIZE in {*self.names, *(c.what for c in self._constraints)}
        self._bounds = {str(c): self._bound(c, space) for c in self._constraints}

    @property
    def directions(self) -> list[Direction]:
        """Optuna's words; whatever a task's metric, its value here is higher where it is better."""
        return directions(self.names)

    @property
    def scored(self) -> tuple[str, ...]:
        """The objectives that documents decide."""
        return tuple(name for name in self.names if name != SIZE)

    def size(self, recipe: Recipe) -> int:
        """Parameters of a recipe's model; 0 where no goal asks for them."""
        return self._judge.n_parameters(recipe) if self._counts_size else 0

    def result(self, scores: Scores, size: int) -> Result:
        """What scores come to."""
        values = tuple(_quantity(name, scores, size) for name in self.names)
        violations = {str(c): self._violation(c, scores, size) for c in self._constraints}
        shares = {name: v / (abs(self._bounds[name]) or 1) for name, v in violations.items()}
        return Result(values, violations, shares)

    def dominates(self, ours: Sequence[float], theirs: Sequence[float]) -> bool:
        """Whether values are as good as others in every objective, and better in one."""
        signs = [-1 if direction == "minimize" else 1 for direction in self.directions]
        leads = [s * (a - b) for s, a, b in zip(signs, ours, theirs, strict=True)]
        return min(leads) >= 0 and max(leads) > 0

    def _violation(self, constraint: Constraint, scores: Scores, size: int) -> float:
        lead = _reported(constraint.what, scores, size) - self._bounds[str(constraint)]
        return lead if constraint.relation == "<=" else -lead

    def _bound(self, constraint: Constraint, space: SearchSpace) -> float:
        if not isinstance(constraint.bound, str):
            return constraint.bound
        parents = space.parents
        if constraint.bound != BEST_PARENT:
            parents = {constraint.bound: parents[constraint.bound]}
        values, failures = [], []
        for name, ref in parents.items():
            try:
                values.append(self._of_parent(constraint.what, ref, space))
            except CandidateError as error:  # it cannot be the best of them
                failures.append(f"{name} has no score: {error}")
        if not values:
            raise InputError(
                f"search.constraints: {constraint}: {'; '.join(failures)}; take a number"
            )
        return max(values) if constraint.relation == ">=" else min(values)

    def _of_parent(self, what: str, ref: ModelRef, space: SearchSpace) -> float:
        recipe = soup_of(space, [ref])
        if what == SIZE:
            return float(self.size(recipe))
        return _reported(what, self._judge.score(recipe, full=self._full).scores, 0)


def distance(shares: Mapping[str, float]) -> float:
    """How far a candidate is from keeping all constraints, from violations in shares of bounds."""
    return sum(max(0.0, share) for share in shares.values())


def directions(names: Sequence[str]) -> list[Direction]:
    """Optuna's words for the directions of objectives."""
    return ["minimize" if name == SIZE else "maximize" for name in names]


def check_goals(space: SearchSpace, evaluator: "Evaluator") -> None:
    """Refuse objectives and constraints that name no task, and lower bounds of what is to be low.

    Raises:
        InputError: naming the tasks that there are, or the constraint.
    """
    tasks = [name for task in evaluator.tasks() for name in (task.id.task, task.id.group) if name]
    known = list(dict.fromkeys([SCORE, SIZE, *tasks]))
    named = {
        "objectives": space.search.objectives,
        "constraints": [constraint.what for constraint in space.search.constraints],
    }
    for key, names in named.items():
        for name in names:
            if name not in known:
                raise InputError(f"search.{key}: {unknown('objective', name, known)}")
    for constraint in space.search.constraints:
        named_tasks = [t for t in evaluator.tasks() if constraint.what in (t.id.task, t.id.group)]
        if constraint.relation == ">=" and any(not t.id.higher_is_better for t in named_tasks):
            raise InputError(
                f"search.constraints: {constraint}: lower is better in {constraint.what}; write <="
            )


def _quantity(name: str, scores: Scores, size: int) -> float:
    if name == SIZE:
        return float(size)
    return (scores if name == SCORE else scores.of(name)).total


def _reported(name: str, scores: Scores, size: int) -> float:
    """What a constraint bounds: a task's value as it is reported, whatever is better in it."""
    value = _quantity(name, scores, size)
    if name in (SCORE, SIZE) or any(task.id.higher_is_better for task in scores.of(name).tasks):
        return value
    return -value
