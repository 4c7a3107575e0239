"""A row of the method table: a method's formula, parameters and needs."""

import keyword
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mergesearch.methods.checks import any_arguments
from mergesearch.plugins import check_reference, imported

if TYPE_CHECKING:
    from mergesearch.methods.formula import Formula
    from mergesearch.methods.sparse import KeepRule

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
    #: The values a search tries instead of a range.
    choices: tuple[Scalar, ...] = ()
    #: Whether a search varies it by block of layers and tensor group, unless told otherwise.
    by_block: bool = False
    #: Whether it means the same in every method that has it.
    shared: bool = False
    #: The merged tensor has a derivative with respect to it, almost everywhere.
    differentiable: bool = False

    @property
    def argument(self) -> str:
        """The name of the function's argument."""
        return f"{self.name}_" if keyword.iskeyword(self.name) else self.name

    def check(self, value: Scalar) -> Scalar:
        """Value, as the method takes it.

        Raises:
            ValueError: the value is not one that the parameter may take.
        """
        if value in self.words:
            return value
        if self.kind is bool:
            if not isinstance(value, bool):
                raise ValueError(self._rule("true or false", value))
            return value
        what = "a whole number" if self.kind is int else "a number"
        try:
            if isinstance(value, bool):
                raise TypeError
            number = float(value)
            if self.kind is int and not number.is_integer():
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError(self._rule(what, value)) from None
        if not math.isfinite(number):
            raise ValueError(self._rule("finite", value))
        if not (self.low <= number <= self.high and number > self.above):
            raise ValueError(self._rule(f"in {self.interval}", value))
        return int(number) if self.kind is int else number

    @property
    def interval(self) -> str:
        """The allowed interval, as mathematics writes it."""
        opening = f"({self.above:g}" if self.above > self.low else f"[{self.low:g}"
        return f"{opening}, {self.high:g}{']' if math.isfinite(self.high) else ')'}"

    def _rule(self, rule: str, value: object) -> str:
        words = "".join(f" or {word!r}" for word in self.words)
        return f"{self.name} must be {rule}{words}, got {value!r}"


@dataclass(frozen=True)
class Sparsified:
    """A keep-rule for task vectors, and the way in which the kept parts are merged.

    >>> from mergesearch.methods import METHODS
    >>> METHODS["dare_ties"].function
    Sparsified(keep='.dare:DARE', elect=True)
    """

    #: The `sparse.KeepRule`, or where it is: "module:rule", imported at its first use.
    keep: "KeepRule | str"
    #: Elect a sign for each entry (TIES), or add what is kept.
    elect: bool

    def formula(self) -> "Callable[..., Formula]":
        """Make the function from inputs and arguments to a formula.

        Raises:
            InputError: the rule cannot be imported.
        """
        from mergesearch.methods.sparse import sparsified

        rule = (
            imported(self.keep, "merge function", __package__)
            if isinstance(self.keep, str)
            else self.keep
        )
        return sparsified(rule, elect=self.elect)


@dataclass(frozen=True)
class Method:
    """One merge method: its formula, and all that the other rooms need to know of it.

    >>> from mergesearch.methods import Method, Parameter
    >>> half = Method(
    ...     "my_package:halfway",
    ...     (Parameter("t", default=0.5, low=0, high=1, search=(0, 1)),),
    ...     base="required",
    ...     source="arXiv:2212.04089",
    ... )
    >>> half.arguments(n_models=2, given={})
    {'t': 0.5}
    """

    #: The function from inputs and arguments to a formula, or where it is: "module:function",
    #: imported at its first use, so that the table needs no torch. A module that begins with a dot
    #: is one of this package's. Or a rule to sparsify by.
    function: "Callable[..., Formula] | str | Sparsified"
    parameters: tuple[Parameter, ...]
    #: "required": deltas from the base are merged; "optional": deltas where there is one;
    #: "first": the base is the first of the models; "unused": it is a model like the others.
    base: Literal["required", "optional", "first", "unused"]
    #: Where it comes from.
    source: str
    #: How many models besides the base it takes, at least and at most.
    n_models: tuple[int, float] = (1, math.inf)
    #: Whether it draws random numbers: the inputs then have a key for each model.
    random: bool = False
    #: What its formula looks at as a whole, and not block by block.
    whole: Literal["nothing", "ranks", "matrices", "everything"] = "nothing"
    #: Of a matrix it also holds squares of its columns, one for each model and some more.
    squares: bool = False
    #: Whether mergekit has it under this name.
    in_mergekit: bool = True
    #: A rule that joins parameters: raises ValueError where a tensor's arguments break it.
    check: Callable[[Mapping[str, Any]], None] = any_arguments
    #: Each entry is the same linear combination of the base's and the models' entries, which
    #: follows from the arguments alone; where there is a base, its coefficients add up to one.
    combination: bool = False
    #: It merges LoRA adapters of the base alone: `Inputs.factors` of each matrix must be known.
    needs_adapters: bool = False
    #: Statistics of its models that it looks at, which prompts decide: "gram", "fisher", …; see
    #: `Inputs.statistic`.
    statistics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_reference("function", self.function)

    @cached_property
    def formula(self) -> "Callable[..., Formula]":
        """The function from inputs and arguments to the formula of a tensor's rows.

        It looks at the inputs as it needs to, and recalls the numbers that no argument changes.

        Raises:
            InputError: it cannot be imported.
        """
        match self.function:
            case str():
                return imported(self.function, "merge function", __package__)
            case Sparsified():
                return self.function.formula()
        return self.function

    @property
    def differentiable(self) -> tuple[Parameter, ...]:
        """The parameters that the merged tensor has a derivative with respect to."""
        return tuple(p for p in self.parameters if p.differentiable)

    def arguments(self, n_models: int, given: Mapping[str, Any]) -> dict[str, Any]:
        """Formula's arguments: those given, and the defaults of all others that have one."""
        defaults = {
            p.argument: [p.default] * n_models if p.per_model else p.default
            for p in self.parameters
            if p.default is not REQUIRED
        }
        return {**defaults, **given}

    def copies(self, name: str, n_dims: int, n_models: int) -> int:
        """Count the float32 tensors of a tensor's size that its formula holds at once."""
        if self.whole == "nothing" or (self.whole == "matrices" and not is_matrix(name, n_dims)):
            return 0
        if self.whole == "ranks":  # the rank of each entry in its row, for each model
            return n_models
        # what solves for matrices does so in float64
        return (4 * n_models + 12) if self.squares else (2 * n_models + 6)

    def n_squares(self, name: str, n_dims: int, n_models: int) -> int:
        """Count the float32 squares of a tensor's columns that its formula holds at once."""
        return 3 * n_models + 14 if self.squares and is_matrix(name, n_dims) else 0

    @property
    def n_chosen(self) -> int:
        """Number of a search's parents in one candidate; 0 means all of them."""
        most = self.n_models[1]
        return 0 if math.isinf(most) else int(most) + (self.base == "first")

    @property
    def needs_base(self) -> bool:
        """True where a recipe must name a base."""
        return self.base in ("required", "first")

    @property
    def sets_base_apart(self) -> bool:
        """True where a base that is named is no model like the others."""
        return self.base != "unused"

    def parameter(self, name: str) -> Parameter | None:
        """Parameter of that name, if the method has one."""
        return next((p for p in self.parameters if p.name == name), None)


def is_matrix(name: str, n_dims: int) -> bool:
    """Say if a tensor of that name maps one hidden space to another."""
    return n_dims == 2 and not any(word in name for word in ("embed", "wte", "wpe", "lm_head"))
