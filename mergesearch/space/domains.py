"""The domains of a method's parameters: a value, a range or a list of values each."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from mergesearch.config import unknown
from mergesearch.methods import METHODS, Method, Parameter, Scalar
from mergesearch.space.stacking import Stacking, as_stacking

# Choices beside the merge methods.
#: The order in which a greedy soup tries the parents.
GREEDY_SOUP = "greedy_soup"
#: Which layers of which parents follow one another.
STACKING = "stacking"


@dataclass(frozen=True)
class Fixed:
    """A parameter with one value."""

    value: Scalar


@dataclass(frozen=True)
class Range:
    """A parameter searched over an interval."""

    low: float
    high: float


@dataclass(frozen=True)
class WholeRange:
    """A parameter searched over whole numbers, both ends included."""

    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    """A parameter searched over a list of values."""

    values: tuple[Scalar, ...]


Domain = Fixed | Range | WholeRange | Choice
#: What a space says of a method: of each parameter, or of stacks.
Spec = Mapping[str, Domain] | Stacking


def as_domains(methods: Any) -> Any:
    """Read and check every parameter's domain in the `methods` mapping of a space.

    Raises:
        ValueError: something in it is wrong.
    """
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError("methods must name at least one method, e.g. task_arithmetic: {}")
    return {
        name: as_stacking(spec) if name == STACKING else _method_domains(name, spec)
        for name, spec in methods.items()
    }


def _method_domains(name: str, spec: Any) -> dict[str, Domain]:
    if name == GREEDY_SOUP:
        if spec:
            raise ValueError(f"{GREEDY_SOUP} has no parameters, got {spec!r}")
        return {}
    method = METHODS.get(name)
    if method is None:
        raise ValueError(unknown("method", name, [*METHODS, GREEDY_SOUP, STACKING]))
    if name == "passthrough":
        raise ValueError(f"{name} is searched as {STACKING}, e.g. {STACKING}: {{depth: [30, 40]}}")
    spec = {} if spec is None else spec
    if not isinstance(spec, Mapping):
        raise ValueError(f"{name} takes a mapping of parameters, e.g. {name}: {{}}, got {spec!r}")
    domains: dict[str, Domain] = {p.name: Range(*p.search) for p in method.parameters if p.search}
    domains |= {p.name: Choice(p.choices) for p in method.parameters if p.choices}
    for key, raw in spec.items():
        parameter = method.parameter(key)
        if parameter is None:
            raise ValueError(
                unknown(f"parameter of {name}", key, [p.name for p in method.parameters])
            )
        domains[key] = _domain(f"{name}.{key}", parameter, raw)
    _check_corners(name, method, domains)
    return domains


def _check_corners(name: str, method: Method, domains: Mapping[str, Domain]) -> None:
    """Refuse ranges whose extremes break a rule that joins a method's parameters.

    Weights are left out: that all of them may be zero makes no space wrong.
    """
    extremes = {
        p.argument: _extremes(domains.get(p.name, Fixed(p.default)))
        for p in method.parameters
        if p.name != "weight"
    }
    for corner in product(*extremes.values()):
        arguments = dict(zip(extremes, corner, strict=True)) | {"weight": 1.0}
        lists = {p.argument: p.per_model for p in method.parameters}
        arguments = {k: [v] if lists.get(k) else v for k, v in arguments.items()}
        try:
            method.check(arguments)
        except ValueError as error:
            raise ValueError(f"{name}: {error}; narrow the ranges") from None


def _extremes(domain: Domain) -> tuple[Any, ...]:
    match domain:
        case Range(low, high) | WholeRange(low, high):
            return (low, high)
        case Choice(values):
            return values
        case Fixed(value):
            return (value,)


def _domain(where: str, parameter: Parameter, raw: Any) -> Domain:
    """Read a domain: a scalar is fixed, two numbers a range, another list a choice."""
    try:
        if isinstance(raw, Domain):
            return raw
        if not isinstance(raw, list | tuple):
            return Fixed(parameter.check(raw))
        values = tuple(parameter.check(value) for value in raw)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    numbers = [value for value in values if not isinstance(value, bool | str)]
    if len(values) == len(numbers) == 2:
        low, high = numbers
        if not low < high:
            raise ValueError(f"{where}: a range is [low, high] with low < high, got {raw!r}")
        return WholeRange(int(low), int(high)) if parameter.kind is int else Range(low, high)
    if len(values) < 2:
        raise ValueError(f"{where}: a list needs two values or more, got {raw!r}")
    return Choice(values)
