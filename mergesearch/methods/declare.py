"""What a row of the method table says: a method's function, parameters and needs."""

import keyword
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Scalar = bool | int | float | str
REQUIRED = object()


@dataclass(frozen=True)
class Parameter:
    """One parameter of a merge method, as it is called in YAML."""

    name: str
    #: One value for each model (never for the base), or one for all.
    per_model: bool = False
    kind: type = float
    #: What holds when a recipe leaves it out; REQUIRED where it must not.
    default: Any = REQUIRED
    #: The values allowed, as an interval open at the low end where `above` is set.
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    #: Further values allowed beside those of `kind`.
    words: tuple[str, ...] = ()
    #: The range a search uses unless the space gives one; None: not searched by itself.
    search: tuple[float, float] | None = None
    #: Whether a search may vary it by block of layers and tensor group.
    by_block: bool = False

    @property
    def argument(self) -> str:
        """The name of the function's argument."""
        return f"{self.name}_" if keyword.iskeyword(self.name) else self.name

    def check(self, value: Scalar) -> Scalar:
        """The value, as the method takes it.

        Raises:
            ValueError: the value is not one that the parameter may take.
        """
        if value in self.words:
            return value
        if self.kind is bool:
            if not isinstance(value, bool):
                raise ValueError(self._rule("true or false", value))
            return value
        try:
            if isinstance(value, bool):
                raise TypeError
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(self._rule("a number", value)) from None
        if not math.isfinite(number):
            raise ValueError(self._rule("finite", value))
        if not (self.low <= number <= self.high and number > self.above):
            raise ValueError(self._rule(f"in {self.interval}", value))
        return number

    @property
    def interval(self) -> str:
        """The allowed interval, as mathematics writes it."""
        opening = f"({self.above:g}" if self.above > self.low else f"[{self.low:g}"
        return f"{opening}, {self.high:g}{']' if math.isfinite(self.high) else ')'}"

    def _rule(self, rule: str, value: object) -> str:
        words = "".join(f" or {word!r}" for word in self.words)
        return f"{self.name} must be {rule}{words}, got {value!r}"


@dataclass(frozen=True)
class Method:
    """One merge method: a pure function, and all that the other rooms need to know of it."""

    merge: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    #: "required": deltas from the base are merged; "unused": the base is an input like the others.
    base: Literal["required", "unused"]
    #: Where it comes from.
    paper: str
    #: How many models besides the base it takes, at least and at most.
    n_models: tuple[int, float] = (1, math.inf)
    #: Whether it draws random numbers: its function then takes one generator for each model.
    random: bool = False

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of that name, if the method has one."""
        return next((p for p in self.parameters if p.name == name), None)
