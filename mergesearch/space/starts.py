"""Known good points that a study tries first."""

import math
from dataclasses import dataclass
from typing import Any

from mergesearch.methods import Scalar
from mergesearch.space.domains import Choice, Domain, Fixed, Range
from mergesearch.space.schema import SearchSpace
from mergesearch.space.suggest import REST

#: The values of lambda at which plain task arithmetic is tried.
LAMBDAS = (0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Start:
    """A point of the space, by the names of the study's parameters."""

    label: str
    params: dict[str, Any]


def starts(space: SearchSpace) -> tuple[list[Start], list[str]]:
    """The points that `start_from` asks for, and a line for each that the space does not hold."""
    found: list[Start] = []
    left_out: list[str] = []

    def add(label: str, *options: tuple[str, dict[str, float]]) -> None:
        """Take the first option, a method and each parent's weight, that the space holds."""
        points = [_point(space, method, weights) for method, weights in options]
        held = [point for point in points if point is not None]
        if held:
            found.append(Start(label, held[0]))
        else:
            left_out.append(f"{label} is not a point of this space, and is not tried first")

    def same(weight: float) -> dict[str, float]:
        return dict.fromkeys(space.parents, weight)

    if "parents" in space.search.start_from:
        for parent in space.parents:
            alone = {name: float(name == parent) for name in space.parents}
            add(parent, *((method, alone) for method in ("linear", "task_arithmetic", "ties")))
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
    return found, left_out


def _point(space: SearchSpace, method: str, weights: dict[str, float]) -> dict[str, Any] | None:
    """The parameters at which a method has these weights everywhere, if the space holds them."""
    if method not in space.methods:
        return None
    own = space.methods[method]
    weight = own.get("weight")
    if not isinstance(weight, Range) or not all(
        weight.low <= w <= weight.high for w in weights.values()
    ):
        return None
    params: dict[str, Any] = {"method": method} if len(space.methods) > 1 else {}
    neutral: dict[str, Scalar] = {"lambda": 1.0, "density": 1.0}
    if not math.isclose(sum(weights.values()), 1):
        neutral["normalize"] = False
    for name, value in neutral.items():
        domain = own.get(name, Fixed(value))
        if not _holds(domain, value):
            return None
        if not isinstance(domain, Fixed):
            params[f"{method}.{name}"] = value
    granularity = space.granularity
    blocks = [f".{i}" for i in range(granularity.blocks)] if granularity.blocks > 1 else [""]
    groups = [f".{g}" for g in (*granularity.groups, REST)] if granularity.groups else [""]
    for parent, w in weights.items():
        for block in blocks:
            for group in groups:
                params[f"weight.{parent}{block}{group}"] = w
    return params


def _holds(domain: Domain, value: Scalar) -> bool:
    match domain:
        case Range(low, high):
            return low <= value <= high  # type: ignore[operator]
        case Choice(values):
            return value in values
        case Fixed(only):
            return only == value
