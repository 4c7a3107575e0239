"""The search-space YAML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mergesearch.config import Config, parse, read_yaml, unknown
from mergesearch.errors import InputError
from mergesearch.methods import METHODS, Method, Parameter, Scalar
from mergesearch.recipe import ModelRef, TokenizerSource

SAMPLERS = ("tpe", "cmaes", "random")
#: A choice beside the merge methods: the order in which a greedy soup tries the parents.
GREEDY_SOUP = "greedy_soup"


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
class Choice:
    """A parameter searched over a list of values."""

    values: tuple[Scalar, ...]


Domain = Fixed | Range | Choice


class Granularity(Config):
    """How finely weights vary over a model.

    `blocks` parts of the depth and each of the tensor `groups` (parts of tensor names, such as
    self_attn) have weights of their own; tensors in no group share one more set. With `smooth` the
    weights are interpolated between the blocks.
    """

    blocks: int = Field(default=1, ge=1)
    groups: tuple[str, ...] = ()
    smooth: bool = False


class SearchSettings(Config):
    """How the space is searched."""

    sampler: str = "tpe"
    trials: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)
    start_from: tuple[Literal["parents", "uniform", "task_arithmetic"], ...] = (
        "parents",
        "uniform",
        "task_arithmetic",
    )

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise ValueError(unknown("sampler", name, SAMPLERS))
        return name


def _as_domains(methods: Any) -> Any:
    """The `methods` mapping with every parameter's domain understood and checked."""
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError("methods must name at least one method, e.g. task_arithmetic: {}")
    return {name: _method_domains(name, spec) for name, spec in methods.items()}


Methods = Annotated[Mapping[str, Mapping[str, Domain]], BeforeValidator(_as_domains)]


class SearchSpace(Config):
    """Which models may be merged, how, and by what they are judged."""

    base: ModelRef | None = None
    parents: Mapping[str, ModelRef] = Field(min_length=1)
    granularity: Granularity = Granularity()
    methods: Methods
    #: Whose vocabulary every candidate has; None means that the models' must not differ.
    tokenizer_source: TokenizerSource | None = None
    suite: Path
    search: SearchSettings = SearchSettings()

    @classmethod
    def load(cls, path: Path) -> "SearchSpace":
        """Read a space; relative paths in it resolve against its own folder.

        Raises:
            InputError: as `file: key: what is wrong`.
        """
        path = Path(path)
        space = parse(cls, read_yaml(path), str(path))
        folder = path.parent
        suite = folder / space.suite
        if not suite.is_file():
            raise InputError(f"{path}: suite: no such file: {suite}")
        try:
            resolved = {
                "base": space.base and space.base.resolved(folder),
                "parents": {n: ref.resolved(folder) for n, ref in space.parents.items()},
                "suite": suite.resolve(),
            }
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        # again, since two spellings may lead to one folder
        return parse(cls, {**dict(space), **resolved}, str(path))

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Every model, the base first."""
        return tuple(ref for ref in (self.base, *self.parents.values()) if ref is not None)

    @field_validator("parents")
    @classmethod
    def _plain_names(cls, parents: Mapping[str, ModelRef]) -> Mapping[str, ModelRef]:
        for name in parents:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"a parent's name is letters, digits, _ and -, got {name!r}")
        if "base" in parents:
            raise ValueError("a parent must not be named 'base'; give the base by the key base")
        seen: dict[ModelRef, str] = {}
        for name, ref in parents.items():
            if ref in seen:
                raise ValueError(f"{seen[ref]} and {name} are the same model, {ref}")
            seen[ref] = name
        return parents

    @model_validator(mode="after")
    def _searchable(self) -> "SearchSpace":
        if self.base is not None and self.base in self.parents.values():
            raise ValueError(f"the base {self.base} must not be one of the parents as well")
        if self.tokenizer_source is not None and self.base is None:
            raise ValueError(
                f"tokenizer_source {self.tokenizer_source} needs a base; name the model whose "
                "tokens come first"
            )
        for name in self.methods:
            if name == GREEDY_SOUP:
                continue
            if self.tokenizer_source is not None and not _takes_all(name):
                raise ValueError(
                    f"all candidates must have one vocabulary, but {name} merges models of its own "
                    "choice; drop it or tokenizer_source"
                )
            if len(self.parents) < (least := METHODS[name].n_chosen or METHODS[name].n_models[0]):
                raise ValueError(f"{name} needs at least {least} parents, got {len(self.parents)}")
            if METHODS[name].base == "required" and self.base is None:
                raise ValueError(f"{name} needs a base; name the common ancestor of the parents")
        if self.search.sampler == "cmaes" and len(self.methods) > 1:
            raise ValueError(
                "sampler cmaes searches one method, since it draws categorical choices at random; "
                f"got {', '.join(self.methods)}: keep one, or use tpe"
            )
        return self


def _takes_all(name: str) -> bool:
    """Whether a method's candidates can name the base and every parent."""
    method = METHODS[name]
    return name == "linear" or (method.base == "required" and not method.n_chosen)


def _method_domains(name: str, spec: Any) -> dict[str, Domain]:
    if name == GREEDY_SOUP:
        if spec:
            raise ValueError(f"{GREEDY_SOUP} has no parameters, got {spec!r}")
        return {}
    method = METHODS.get(name)
    if method is None:
        raise ValueError(unknown("method", name, [*METHODS, GREEDY_SOUP]))
    if name == "passthrough":
        raise ValueError(f"{name} has nothing to search; merge it as a recipe instead")
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
        case Range(low, high):
            return (low, high)
        case Choice(values):
            return values
        case Fixed(value):
            return (value,)


def _domain(where: str, parameter: Parameter, raw: Any) -> Domain:
    """A scalar is fixed, two numbers are a range, any other list is a choice."""
    try:
        if isinstance(raw, Fixed | Range | Choice):
            return raw
        if not isinstance(raw, list | tuple):
            return Fixed(parameter.check(raw))
        values = tuple(parameter.check(value) for value in raw)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    numbers = [value for value in values if isinstance(value, float)]
    if len(values) == len(numbers) == 2:
        low, high = numbers
        if not low < high:
            raise ValueError(f"{where}: a range is [low, high] with low < high, got {raw!r}")
        return Range(low, high)
    if len(values) < 2:
        raise ValueError(f"{where}: a list needs two values or more, got {raw!r}")
    return Choice(values)
