"""Learned coefficients in a space: what is learned, and what trials choose of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mergesearch.config import Config, unknown
from mergesearch.methods import METHODS, Method, Parameter
from mergesearch.recipe import ModelRef, Recipe, Slice, Source, VocabularySource
from mergesearch.space.domains import Domain, Fixed, Range, method_domains

if TYPE_CHECKING:
    import optuna

#: Where a parameter starts that has no other place: whole deltas.
_START = {"weight": 1.0, "lambda": 1.0}
#: The range of what scales deltas, unless a space gives one. A gradient knows which way to go: the
#: ranges that a search guesses in are too narrow, for negative weights unlearn as well.
_RANGE = Range(-1.0, 3.0)
#: What trials choose, in a study's names.
PASS, PULL, SCALE, RATE = "learned.pass", "learned.pull", "learned.scale", "learned.learning_rate"
#: Digits kept of a choice, as of every suggested number.
_DECIMALS = 4


def _as_range(value: Any) -> Any:
    """One number as a range that holds only that."""
    return value if isinstance(value, list | tuple) else (value, value)


Interval = Annotated[
    tuple[float, float],
    BeforeValidator(_as_range, json_schema_input_type=float | tuple[float, float]),
]


class Learned(Config):
    """Coefficients learned by gradient, of a method that is differentiable in them.

    An optimiser's way through the documents is one computation, kept pass by pass. Trials choose a
    pass of it, how far each coefficient is pulled towards the mean of its parent's, and by what
    each parent's are scaled.

    >>> from mergesearch.space import Learned
    >>> learned = Learned(granularity="layer", learning_rate=(0.01, 0.1))
    >>> [round(rate, 3) for rate in learned.learning_rates]
    [0.01, 0.032, 0.1]
    """

    #: A row of `METHODS` that has differentiable parameters.
    of: str = "task_arithmetic"
    #: What has a coefficient of its own for each parent: each module of each layer, each layer,
    #: each block of the space's granularity, or the model.
    granularity: Literal["tensor", "layer", "block", "model"] = "tensor"
    #: "labels": the tasks' right answers; "parents": the answers of the parent that is best at a
    #: task, or that the suite names as its expert.
    loss: Literal["labels", "parents"] = "labels"
    #: Documents of each task that a pass learns from, at most.
    documents: int = Field(default=100, ge=1)
    #: Passes, each through documents of its own as long as there are some, and then from the start.
    passes: int = Field(default=3, ge=1)
    #: Documents of one step.
    batch: int = Field(default=15, ge=1)
    #: Adam's, at the top of the cosine by which it falls in each pass; of a range its ends and
    #: their geometric mean are tried.
    learning_rate: Interval = (0.1, 0.1)
    #: How far coefficients are pulled towards the mean of their parent's: 1 is all the way.
    pull: Interval = (0.0, 1.0)
    #: By what a parent's coefficients are multiplied.
    scale: Interval = (0.8, 1.2)
    #: The method's parameters as under its own name: a range for what is learned, values for the
    #: others.
    parameters: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("of")
    @classmethod
    def _differentiable(cls, name: str) -> str:
        known = [other for other in METHODS.own if _learned(METHODS[other])]
        if name not in METHODS:
            raise ValueError(unknown("method", name, known))
        if not _learned(METHODS[name]):
            raise ValueError(
                f"coefficients are learned of a method that is differentiable in them, and {name} "
                f"is not; take one of {', '.join(known)}"
            )
        return name

    @field_validator("learning_rate", "pull", "scale")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not interval[0] <= interval[1]:
            raise ValueError(f"a range is [low, high] with low <= high, got {list(interval)}")
        return interval

    @model_validator(mode="after")
    def _in_bounds(self) -> "Learned":
        if self.learning_rate[0] <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate[0]:g}")
        if not 0 <= self.pull[0] <= self.pull[1] <= 1:
            raise ValueError(f"pull must lie in [0, 1], got {list(self.pull)}")
        for name, domain in self.domains.items():
            parameter = self.method.parameter(name)
            if parameter in self.searched and not isinstance(domain, Range):
                raise ValueError(
                    f"parameters.{name} is learned, so it must be a range [low, high], got "
                    f"{getattr(domain, 'value', domain)!r}"
                )
        for parameter in self.method.parameters:
            if parameter not in self.searched:
                self._check_value(parameter)
        return self

    def _check_value(self, parameter: Parameter) -> None:
        """Refuse what leaves a parameter that is not learned without one value."""
        name = parameter.name
        if name in self.parameters and not isinstance(self.domains[name], Fixed):
            names = " and ".join(p.name for p in self.searched)
            raise ValueError(
                f"parameters.{name} is not learned, so it must be a value, got "
                f"{self.parameters[name]!r}; what is learned of {self.of} is {names}"
            )
        self.value(parameter)

    @property
    def method(self) -> Method:
        """The row of the method table."""
        return METHODS[self.of]

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The domains of the method's parameters."""
        return method_domains(self.of, self.parameters)

    @property
    def searched(self) -> tuple[Parameter, ...]:
        """The parameters that are learned: differentiable ones that vary by block."""
        return _learned(self.method)

    def range(self, parameter: Parameter) -> Range:
        """Give the range that a learned parameter keeps to."""
        if parameter.name in _START and parameter.name not in self.parameters:
            return _RANGE
        domain = self.domains[parameter.name]
        assert isinstance(domain, Range)
        return domain

    def start(self, parameter: Parameter) -> float:
        """Give the value that a learned parameter starts at."""
        domain = self.range(parameter)
        start = _START.get(parameter.name, (domain.low + domain.high) / 2)
        return min(max(start, domain.low), domain.high)

    def value(self, parameter: Parameter) -> Any:
        """Give the value of a parameter that is not learned: fixed, or the default.

        Raises:
            ValueError: it has none.
        """
        domain = self.domains.get(parameter.name)
        value = domain.value if isinstance(domain, Fixed) else parameter.default
        try:
            return value if value is None else parameter.check(value)
        except ValueError:
            raise ValueError(
                f"{self.of} needs a {parameter.name}, which is not learned; give it a value, as in "
                f"parameters: {{{parameter.name}: …}}"
            ) from None

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates that are tried, each of which is a computation of its own."""
        low, high = self.learning_rate
        return (low,) if low == high else (low, math.sqrt(low * high), high)

    @property
    def end(self) -> "LearnedPoint":
        """The end of the first trajectory, as it is."""
        rates = self.learning_rates
        return LearnedPoint(rates[len(rates) // 2], self.passes, 0.0, {})

    def template(
        self,
        base: ModelRef | None,
        parents: Mapping[str, ModelRef],
        tokenizer_source: VocabularySource | None,
        seed: int,
    ) -> Recipe:
        """Make a recipe with every parent, every learned parameter at its start."""
        models = list(parents.values())
        if self.method.base == "first":
            base, *models = models
        shared = {
            p.name: self.value(p)
            for p in self.method.parameters
            if p not in self.searched and self.value(p) is not None
        }
        shared |= {p.name: self.start(p) for p in self.searched}
        return Recipe(
            merge_method=self.of,
            base_model=base if self.method.sets_base_apart else None,
            parameters=shared,
            slices=(Slice(sources=tuple(Source(model=model) for model in models)),),
            tokenizer_source=tokenizer_source,
            seed=seed,
        )


@dataclass(frozen=True)
class LearnedPoint:
    """A candidate with the coefficients of a trajectory, changed as a trial chose."""

    learning_rate: float
    #: Passes that were gone through, at least 1.
    n_passes: int
    #: In [0, 1].
    pull: float
    #: By the parent's name.
    scales: Mapping[str, float]


def suggest_learned(
    learned: Learned, parents: Sequence[str], trial: "optuna.trial.BaseTrial"
) -> LearnedPoint:
    """Draw a point of the trajectories.

    Args:
        learned: what may be drawn.
        parents: their names.
        trial: an Optuna trial; its `suggest_*` functions are called.
    """

    def drawn(name: str, interval: tuple[float, float]) -> float:
        if interval[0] == interval[1]:
            return interval[0]
        return round(trial.suggest_float(name, *interval), _DECIMALS)

    rates, n_passes = learned.learning_rates, learned.passes
    rate = rates[0] if len(rates) == 1 else trial.suggest_categorical(RATE, rates)
    last = n_passes if n_passes == 1 else trial.suggest_int(PASS, 1, n_passes)
    pull = drawn(PULL, learned.pull)
    scales = {name: drawn(f"{SCALE}.{name}", learned.scale) for name in parents}
    return LearnedPoint(rate, last, pull, scales)


def learned_starts(learned: Learned, parents: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """List the points to try first, each with a label: the first pass, and the last.

    The first costs the least, and is the most that many searches need.
    """
    numbers = dict.fromkeys((1, learned.passes))
    return [(f"pass {n} as it is", _as_it_is(learned, parents, n)) for n in numbers]


def _as_it_is(learned: Learned, parents: Sequence[str], number: int) -> dict[str, Any]:
    """Give the study's parameters at a pass of the first trajectory, unchanged."""
    rates = learned.learning_rates
    params: dict[str, Any] = {}
    if len(rates) > 1:
        params[RATE] = rates[len(rates) // 2]
    if learned.passes > 1:
        params[PASS] = number
    choices = {PULL: learned.pull, **{f"{SCALE}.{name}": learned.scale for name in parents}}
    neutral = {PULL: 0.0}
    for name, (low, high) in choices.items():
        if low < high:
            params[name] = min(max(neutral.get(name, 1.0), low), high)
    return params


def _learned(method: Method) -> tuple[Parameter, ...]:
    """List the parameters of a method that can be learned."""
    if method.n_models == (1, 1) and method.base == "unused":  # a copy of one model
        return ()
    return tuple(p for p in method.differentiable if p.by_block)
