"""The domains of a method's parameters: a value, a range or a list of values each."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from mergesearch.config import unknown
from mergesearch.methods import METHODS, Method, Parameter, Scalar


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


def method_domains(name: str, spec: Any) -> dict[str, Domain]:
    """Read and check what a space says of the parameters of a row of `METHODS`.

    Args:
        name: of the method.
        spec: by parameter a value, a range or a list of values; what is left out has the table's
            search range, if it has one.

    Raises:
        ValueError: something in it is wrong.
    """
    method = METHODS[name]
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


def domain_of(where: str, raw: Any) -> Domain:
    """Read the domain of a number that is no parameter.

    Raises:
        ValueError: it is none.
    """
    return _domain(where, Parameter(where.rpartition(".")[2]), raw)


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
