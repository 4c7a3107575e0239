"""Known good points that a study tries first."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mergesearch.methods import METHODS, Scalar
from mergesearch.space.choices import LEARNED, STACKING
from mergesearch.space.domains import Choice, Domain, Fixed, Range, WholeRange
from mergesearch.space.layout import Shape
from mergesearch.space.learned import learned_starts
from mergesearch.space.lines import ALPHA, BETA, LINES
from mergesearch.space.schema import SearchSpace
from mergesearch.space.stacking import stack_starts
from mergesearch.space.suggest import INCLUDED, suggest

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

#: The values of lambda at which plain task arithmetic is tried.
LAMBDAS = (0.3, 0.5, 1.0)
#: The omega at which AIM changes nothing.
_AS_IT_IS = 1.0

#: Weights in closed form: powers of the norm of a parent's task vector.
_POWERS = {"metagpt": 2, "nan": -1}
#: No scaling by depth.
_FLAT: dict[str, float] = {ALPHA: 1.0, BETA: 0.0}


@dataclass(frozen=True)
class Start:
    """A point of the space, by the names of the study's parameters."""

    label: str
    params: dict[str, Any]


def starts(space: SearchSpace, shape: Shape) -> tuple[list[Start], list[str]]:
    """List the points that `start_from` asks for, and labels of those left out.

    What is learned comes first, then merges, and single parents last: what is good already lets
    what is not be stopped early.
    """
    points: list[Start] = []
    left_out: list[str] = []

    def add(label: str, *options: tuple[str, dict[str, float], bool]) -> None:
        """Take the first option that the space holds.

        Each is a method, the parents' weights, and whether they are divided by their sum.
        """
        params = [_point(space, shape, *option) for option in options]
        held = [point for point in params if point is not None]
        if held:
            points.append(Start(label, held[0]))
        else:
            left_out.append(label)

    def same(weight: float) -> dict[str, float]:
        return dict.fromkeys(space.parents, weight)

    if (learned := space.learned) and "learned" in space.search.start_from:
        named = {"method": LEARNED} if len(space.methods) > 1 else {}
        for label, params in learned_starts(learned, tuple(space.parents)):
            points.append(Start(label, {**named, **params}))
    if "uniform" in space.search.start_from:
        share = 1 / len(space.parents)
        add(
            "uniform soup",
            ("linear", same(1.0), True),  # the uniform soup to the last bit
            ("linear", same(share), True),
            ("task_arithmetic", same(share), True),
        )
    if "task_arithmetic" in space.search.start_from:
        for scale in LAMBDAS:
            add(f"task arithmetic at {scale:g}", ("task_arithmetic", same(scale), False))
    for name in [name for name in _POWERS if name in space.search.start_from]:
        weights = _by_norm(space, shape, _POWERS[name])
        add(name, *([("task_arithmetic", weights, False)] if weights else []))
    if "parents" in space.search.start_from:
        for parent in space.parents:
            alone = {name: float(name == parent) for name in space.parents}
            methods = ("linear", "task_arithmetic", "ties")
            add(parent, *((method, alone, True) for method in methods))
    if (stacking := space.stacking) and space.search.start_from:
        chosen = {"method": STACKING} if len(space.methods) > 1 else {}
        for label, params in stack_starts(stacking, space.parents, shape.n_layers):
            points.append(Start(label, {**chosen, **params}))
    return points, left_out


def _by_norm(space: SearchSpace, shape: Shape, power: int) -> dict[str, float]:
    """Weigh parents by a power of their norms, as parts of one; none if one is 0."""
    norms = shape.norms() if "task_arithmetic" in space.domains else {}
    if not all(norms.values()):
        return {}
    powers = {parent: norm**power for parent, norm in norms.items()}
    return {parent: of / sum(powers.values()) for parent, of in powers.items()}


def _point(
    space: SearchSpace, shape: Shape, method: str, weights: dict[str, float], normalize: bool
) -> dict[str, Any] | None:
    """Find parameters at which a method has these weights, if the space holds them.

    Deltas are whole: lambda and density are 1. All else has the method's default, or what the space
    fixes it at, since `rescale` does nothing where nothing is trimmed. Weights that sum to one are
    the same divided by their sum or not, and either will do.
    """
    if method not in space.domains:
        return None
    if space.subset is not None and sum(map(bool, weights.values())) > space.subset[1]:
        return None
    if space.aim is not None and space.aim.omega[1] < _AS_IT_IS:
        return None
    own = space.domains[method]
    weight = own.get("weight")
    if not isinstance(weight, Range) or not all(_holds(weight, w) for w in weights.values()):
        return None
    defaults = {p.name: p.default for p in METHODS[method].parameters if p.name != "weight"}
    fixed = {name: domain.value for name, domain in own.items() if isinstance(domain, Fixed)}
    neutral = defaults | fixed | {"lambda": 1.0, "density": 1.0}
    if not all(_holds(own.get(key, Fixed(value)), value) for key, value in _FLAT.items()):
        return None
    either = math.isclose(sum(weights.values()), 1)
    usual = defaults["normalize"]
    for divided in (usual, not usual) if either else (normalize,):
        point = neutral | {"normalize": divided}
        if all(_holds(own.get(name, Fixed(defaults[name])), point[name]) for name in defaults):
            answers = _Answers(method, weights, point)
            suggest(space, cast("BaseTrial", answers), shape)
            return answers.params
    return None


class _Answers:
    """Stands for a trial: whatever it is asked, its answer is that of one known point."""

    def __init__(self, method: str, weights: dict[str, float], others: dict[str, Scalar]) -> None:
        self.params: dict[str, Any] = {}
        self._method = method
        self._weights = weights
        self._others = others

    def suggest_float(self, name: str, low: float, high: float) -> Any:
        return self._answer(name)

    def suggest_int(self, name: str, low: int, high: int) -> Any:
        return self._answer(name)

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
        return self._answer(name)

    def _answer(self, name: str) -> Any:
        what, *of = name.removeprefix(f"{self._method}.").split(".")
        known: dict[str, Any] = {
            "method": self._method,
            "aim": _AS_IT_IS,
            **self._others,
            **_FLAT,
        }
        what = ".".join((what, *of)) if what == LINES else what
        if what == "weight":
            known["weight"] = self._weights[of[0]]
        elif what == "include":
            known["include"] = INCLUDED if self._weights[of[0]] else 0.0
        self.params[name] = known[what]
        return known[what]


def _holds(domain: Domain, value: Scalar) -> bool:
    match domain:
        case Range(low, high) | WholeRange(low, high):
            return low <= value <= high  # type: ignore[operator]
        case Choice(values):
            return value in values
        case Fixed(only):
            return only == value
