"""Known good points that a study tries first."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mergesearch.methods import Scalar
from mergesearch.space.domains import STACKING, Choice, Domain, Fixed, Range
from mergesearch.space.layout import Shape
from mergesearch.space.schema import SearchSpace
from mergesearch.space.stacking import stack_starts
from mergesearch.space.suggest import INCLUDED, suggest

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

#: The values of lambda at which plain task arithmetic is tried.
LAMBDAS = (0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Start:
    """A point of the space, by the names of the study's parameters."""

    label: str
    params: dict[str, Any]


def starts(space: SearchSpace, shape: Shape) -> tuple[list[Start], list[str]]:
    """The points that `start_from` asks for, and the labels of those that the space does not hold.

    Merges come before single parents: what is good already lets what is not be stopped early.
    """
    found: list[Start] = []
    left_out: list[str] = []

    def add(label: str, *options: tuple[str, dict[str, float]]) -> None:
        """Take the first option, a method and each parent's weight, that the space holds."""
        points = [_point(space, shape, method, weights) for method, weights in options]
        held = [point for point in points if point is not None]
        if held:
            found.append(Start(label, held[0]))
        else:
            left_out.append(label)

    def same(weight: float) -> dict[str, float]:
        return dict.fromkeys(space.parents, weight)

    if "uniform" in space.search.start_from:
        share = 1 / len(space.parents)
        add(
            "uniform soup",
            ("linear", same(1.0)),  # the uniform soup to the last bit
            ("linear", same(share)),
            ("task_arithmetic", same(share)),
        )
    if "task_arithmetic" in space.search.start_from:
        for scale in LAMBDAS:
            add(f"task arithmetic at {scale:g}", ("task_arithmetic", same(scale)))
    if "parents" in space.search.start_from:
        for parent in space.parents:
            alone = {name: float(name == parent) for name in space.parents}
            add(parent, *((method, alone) for method in ("linear", "task_arithmetic", "ties")))
    if (stacking := space.stacking) and space.search.start_from:
        chosen = {"method": STACKING} if len(space.methods) > 1 else {}
        for label, params in stack_starts(stacking, space.parents, shape.n_layers):
            found.append(Start(label, {**chosen, **params}))
    return found, left_out


def _point(
    space: SearchSpace, shape: Shape, method: str, weights: dict[str, float]
) -> dict[str, Any] | None:
    """The parameters at which a method has these weights everywhere, if the space holds them."""
    if method not in space.domains:
        return None
    own = space.domains[method]
    weight = own.get("weight")
    if not isinstance(weight, Range) or not all(_holds(weight, w) for w in weights.values()):
        return None
    neutral: dict[str, Scalar] = {"lambda": 1.0, "density": 1.0}
    if not math.isclose(sum(weights.values()), 1):
        neutral["normalize"] = False
    if not all(_holds(own.get(name, Fixed(value)), value) for name, value in neutral.items()):
        return None
    answers = _Answers(method, weights, neutral)
    suggest(space, cast("BaseTrial", answers), shape)
    return answers.params


class _Answers:
    """Stands for a trial: whatever it is asked, its answer is that of one known point."""

    def __init__(self, method: str, weights: dict[str, float], neutral: dict[str, Scalar]) -> None:
        self.params: dict[str, Any] = {}
        self._method = method
        self._weights = weights
        self._neutral = neutral

    def suggest_float(self, name: str, low: float, high: float) -> Any:
        return self._answer(name)

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
        return self._answer(name)

    def _answer(self, name: str) -> Any:
        what, *of = name.removeprefix(f"{self._method}.").split(".")
        known: dict[str, Any] = {"method": self._method, **self._neutral}
        if what == "weight":
            known["weight"] = self._weights[of[0]]
        elif what == "include":
            known["include"] = INCLUDED if self._weights[of[0]] else 0.0
        self.params[name] = known[what]
        return known[what]


def _holds(domain: Domain, value: Scalar) -> bool:
    match domain:
        case Range(low, high):
            return low <= value <= high  # type: ignore[operator]
        case Choice(values):
            return value in values
        case Fixed(only):
            return only == value
