"""Parameter values by tensor: scalars, gradients over depth, filters by name."""

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from mergesearch.config import Config
from mergesearch.methods import Scalar


def _canonical(raw: Any) -> Any:
    """Spell each value one way: numbers as floats, lists as tuples.

    YAML reads 1e-5 as text.

    Raises:
        ValueError: the value is none that a setting can have.
    """
    match raw:
        case bool():
            return raw
        case int() | float():
            if abs(raw) > sys.float_info.max or math.isnan(raw):
                raise ValueError(f"a value must be finite, got {raw}")
            return float(raw) + 0.0  # -0.0 is 0.0
        case str():
            try:
                number = float(raw)
            except ValueError:
                return raw
            return _canonical(number)
        case list() | tuple() if raw:
            parts = tuple(_canonical(part) for part in raw)
            if len({isinstance(part, Conditional) for part in parts}) > 1:
                raise ValueError(f"a list holds either values or value/filter pairs, got {raw!r}")
            if any(isinstance(part, tuple) for part in parts):
                raise ValueError(f"a list of values must not hold lists, got {raw!r}")
            return parts
        case Mapping():
            return Conditional.model_validate(raw)
        case Conditional():
            return raw
    raise ValueError(
        "a parameter takes a value, a list of values over depth, or value/filter pairs, "
        f"got {raw!r}"
    )


Gradient = tuple[Scalar, ...]


class Conditional(Config):
    """A value for tensors whose name contains `filter`; None or "*" is every tensor."""

    value: Annotated[Scalar | Gradient, BeforeValidator(_canonical)]
    filter: str | None = None

    def applies_to(self, name: str) -> bool:
        """Return True where this is the value of the tensor of that name."""
        return self.filter in (None, "*") or self.filter in name


Setting = Annotated[
    Scalar | Gradient | Conditional | tuple[Conditional, ...], BeforeValidator(_canonical)
]


def leaves(setting: Setting) -> Iterator[Scalar]:
    """Yield every scalar that a setting mentions."""
    if isinstance(setting, Conditional):
        yield from leaves(setting.value)
    elif isinstance(setting, tuple):
        for part in setting:
            yield from leaves(part)
    else:
        yield setting


def evaluate(setting: Setting, name: str, depth: float) -> Scalar | None:
    """Find the value for one tensor.

    Args:
        setting: what the recipe says.
        name: the tensor's name, for filters.
        depth: the layer's position in its slice, in [0, 1]; a gradient's values lie evenly over it,
            interpolated where they are numbers, the nearest below where they are words.

    Returns:
        The first value whose filter matches, or None where none does.
    """
    if isinstance(setting, Conditional):
        setting = (setting,)
    if not isinstance(setting, tuple):
        return setting
    if not setting:
        return None
    if isinstance(setting[0], Conditional):
        for case in setting:
            if isinstance(case, Conditional) and case.applies_to(name):
                return evaluate(case.value, name, depth)
        return None
    return _interpolate(setting, depth)


def _interpolate(values: Gradient, depth: float) -> Scalar:
    position = depth * (len(values) - 1)
    below = int(position)
    low, high = values[below], values[min(below + 1, len(values) - 1)]
    if isinstance(low, float) and isinstance(high, float):
        return (1 - (position - below)) * low + (position - below) * high
    return low
