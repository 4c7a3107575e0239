"""Tensors and parameters drawn for a method: any shape, values with ties and zeros, any flags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import assume, reject
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.errors import CandidateError
from mergesearch.methods import METHODS, REQUIRED, Method, Parameter, apply

Arguments = dict[str, Any]
Shape = tuple[int, ...]

SHAPES: list[Shape] = [
    (), (1,), (5,), (1, 7), (7, 1), (1, 1), (3, 5), (2, 3, 4), (0,), (0, 3), (3, 0), (33, 31),
]  # fmt: skip
# What is drawn for a parameter that a search leaves alone.
RANGES = {"lambda": (-0.5, 2.0), "scale": (-1.0, 2.0), "max_iter": (0, 12), "common": (0.1, 1.0)}


@dataclass(frozen=True)
class Case:
    """A method with all that it is called with."""

    name: str
    base: Tensor | None
    models: tuple[Tensor, ...]
    keys: Tensor | None
    arguments: Arguments

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def inputs(self) -> list[Tensor]:
        return [*self.models, *([] if self.base is None else [self.base])]

    def merged(self, **fields: Any) -> Tensor:
        """The merge; a case that has none, as directions that cancel have no mean, is no case."""
        try:
            return apply(
                self.method, self.base, self.models, keys=self.keys, **self.arguments, **fields
            )
        except CandidateError:
            assert self.name == "multislerp"
            reject()

    def having(self, **arguments: Any) -> "Case":
        """The same with other arguments, of those that the method has."""
        known = {k: v for k, v in arguments.items() if k in self.arguments}
        return replace(self, arguments=self.arguments | known)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Case":
        """The same with each tensor changed."""
        base = None if self.base is None else change(self.base)
        return replace(self, base=base, models=tuple(change(model) for model in self.models))

    def permuted(self, order: Sequence[int]) -> "Case":
        """The same with models, their parameters and their random keys in another order."""
        per_model = {p.argument for p in self.method.parameters if p.per_model}
        arguments = {
            name: [value[i] for i in order] if name in per_model else value
            for name, value in self.arguments.items()
        }
        keys = None if self.keys is None else self.keys[list(order)]
        models = tuple(self.models[i] for i in order)
        return replace(self, models=models, keys=keys, arguments=arguments)


def having(parameter: str) -> list[str]:
    """The methods with such a parameter."""
    return [name for name, method in METHODS.items() if method.parameter(parameter)]


@st.composite
def cases(
    draw: st.DrawFn,
    name: str,
    shapes: Sequence[Shape] = SHAPES,
    *,
    grid: bool | None = None,
    n: int | None = None,
) -> Case:
    """A case of the method.

    Args:
        draw: hypothesis's.
        name: the method.
        shapes: of which one is drawn.
        grid: whether values are multiples of 1/4, so that many are equal or zero.
        n: how many models, if not drawn.
    """
    method = METHODS[name]
    low, high = method.n_models
    n = n or draw(st.integers(int(low), int(min(3, high))))
    shape = draw(st.sampled_from(list(shapes)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    coarse = draw(st.booleans()) if grid is None else grid

    def tensor() -> Tensor:
        if coarse:
            return torch.randint(-6, 7, shape, generator=generator) / 4
        return torch.randn(shape, generator=generator)

    base: Tensor | None = tensor()
    models = tuple(tensor() for _ in range(n))
    if method.base == "unused" or (method.base == "optional" and draw(st.booleans())):
        base = None
    keys = torch.randint(-(2**31), 2**31, (n, 2), generator=generator).int()
    return Case(name, base, models, keys if method.random else None, draw(arguments(method, n)))


@st.composite
def arguments(draw: st.DrawFn, method: Method, n: int) -> Arguments:
    """Arguments that the method allows."""
    drawn = {
        p.argument: draw(st.lists(values(p), min_size=n, max_size=n))
        if p.per_model
        else draw(values(p))
        for p in method.parameters
    }
    assume(allowed(method, drawn))
    return drawn


def values(parameter: Parameter) -> st.SearchStrategy[Any]:
    """Values of a parameter, of its search range where it has one."""
    if parameter.kind is bool:
        return st.sampled_from([True, False, *parameter.words])
    span = parameter.search or RANGES.get(parameter.name)
    if span is None:
        assert parameter.default is not REQUIRED
        return st.just(parameter.default)
    low, high = span
    if parameter.kind is int:
        return st.integers(int(low), int(high))
    # thousandths, so that no sum of weights is a denormal
    return st.integers(round(1000 * low), round(1000 * high)).map(lambda i: i / 1000)


def allowed(method: Method, arguments: Arguments) -> bool:
    """Whether the method's own rule for them holds."""
    try:
        method.check(arguments)
    except ValueError:
        return False
    return True
