"""Tensors and arguments drawn for a method: shapes, ties, zeros, flags."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import assume, reject
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.errors import CandidateError
from mergesearch.methods import REQUIRED, Method, Parameter, apply
from mergesearch.methods.inputs import as_rows

Arguments = dict[str, Any]
Shape = tuple[int, ...]
Ranges = Mapping[str, tuple[float, float]]

SHAPES: list[Shape] = [
    (), (1,), (5,), (1, 7), (7, 1), (1, 1), (3, 5), (2, 3, 4), (0,), (0, 3), (3, 0), (33, 31),
]  # fmt: skip
#: Shapes of tensors that have entries.
FILLED: list[Shape] = [(1,), (5,), (1, 7), (7, 1), (3, 5), (2, 3, 4), (33, 31)]
#: The range drawn from for a parameter that a search leaves alone.
RANGES: Ranges = {"lambda": (-0.5, 2.0)}


@dataclass(frozen=True)
class Case:
    """A method with all that it is called with."""

    method: Method
    #: Tensor of any shape S, or None.
    base: Tensor | None
    #: n tensors of shape S.
    models: tuple[Tensor, ...]
    #: int32 of shape (n, 2), or None where the method draws no random numbers.
    keys: Tensor | None
    arguments: Arguments
    #: The method has no result for some tensors, and raises CandidateError.
    partial: bool = False
    #: By kind, one of each model.
    statistics: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)

    def statistic(self, kind: str, i: int) -> Tensor | None:
        """Look a statistic of the i-th model up; see `Inputs.statistic`."""
        return self.statistics[kind][i]

    @property
    def inputs(self) -> list[Tensor]:
        """The models, and the base where there is one."""
        return [*self.models, *([] if self.base is None else [self.base])]

    def merged(self, **fields: Any) -> Tensor:
        """Merge; a case without a result is no case.

        Directions that cancel have no mean, for one.
        """
        try:
            return apply(
                self.method,
                self.base,
                self.models,
                keys=self.keys,
                statistics=self.statistic,
                **self.arguments,
                **fields,
            )
        except CandidateError:
            if not self.partial:
                raise
            reject()

    def having(self, **arguments: Any) -> "Case":
        """Replace arguments, of those that the method has."""
        known = {k: v for k, v in arguments.items() if k in self.arguments}
        return replace(self, arguments=self.arguments | known)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Case":
        """Change each tensor."""
        base = None if self.base is None else change(self.base)
        return replace(self, base=base, models=tuple(change(model) for model in self.models))

    def permuted(self, order: Sequence[int]) -> "Case":
        """Bring models, their arguments and their random keys in another order."""
        per_model = {p.argument for p in self.method.parameters if p.per_model}
        arguments = {
            name: [value[i] for i in order] if name in per_model else value
            for name, value in self.arguments.items()
        }
        keys = None if self.keys is None else self.keys[list(order)]
        models = tuple(self.models[i] for i in order)
        statistics = {kind: tuple(of[i] for i in order) for kind, of in self.statistics.items()}
        return replace(self, models=models, keys=keys, arguments=arguments, statistics=statistics)


@st.composite
def cases(
    draw: st.DrawFn,
    method: Method,
    shapes: Sequence[Shape] = SHAPES,
    *,
    grid: bool | None = None,
    n: int | None = None,
    ranges: Ranges = RANGES,
    partial: bool = False,
) -> Case:
    """Draw a case of a method.

    Args:
        draw: hypothesis's.
        method: a row of the table.
        shapes: of which one is drawn.
        grid: values are multiples of 1/4, so that many are equal or zero; drawn if not given.
        n: the number of models, if not drawn.
        ranges: by name of a parameter that has no search range, the range it is drawn from.
        partial: the method raises CandidateError for some tensors.
    """
    low, high = method.n_models
    n = n or draw(st.integers(int(low), int(max(low, min(3, high)))))
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
    drawn = draw(arguments(method, n, ranges))
    known = {
        kind: tuple(statistic(kind, shape, generator) for _ in range(n))
        for kind in method.statistics
    }
    return Case(method, base, models, keys if method.random else None, drawn, partial, known)


def statistic(kind: str, shape: Shape, generator: torch.Generator) -> Tensor:
    """Draw a statistic of one model for a tensor; see `Inputs.statistic`."""
    rows, columns = as_rows(torch.empty(shape)).shape
    if kind == "fisher":
        return torch.randn(rows, columns, generator=generator) ** 2
    n = 2 * columns + 1  # inputs enough that the matrix has an inverse
    inputs = torch.randn(n, columns, generator=generator)
    return inputs.T @ inputs / n


@st.composite
def arguments(draw: st.DrawFn, method: Method, n: int, ranges: Ranges = RANGES) -> Arguments:
    """Draw arguments that the method allows."""
    drawn = {
        p.argument: draw(st.lists(values(p, ranges), min_size=n, max_size=n))
        if p.per_model
        else draw(values(p, ranges))
        for p in method.parameters
    }
    assume(allowed(method, drawn))
    return drawn


def values(parameter: Parameter, ranges: Ranges = RANGES) -> st.SearchStrategy[Any]:
    """Values of a parameter: of its search range, of `ranges`, or its default."""
    if parameter.kind is bool:
        return st.sampled_from([True, False, *parameter.words])
    span = parameter.search or ranges.get(parameter.name)
    if span is None:
        if parameter.default is REQUIRED:
            raise ValueError(
                f"{parameter.name} has neither a search range nor a default to be tested with; "
                "name a range in `ranges`"
            )
        return st.just(parameter.default)
    low, high = span
    if parameter.kind is int:
        return st.integers(int(low), int(high))
    # thousandths, so that no sum of weights is a denormal
    return st.integers(round(1000 * low), round(1000 * high)).map(lambda i: i / 1000)


def allowed(method: Method, arguments: Arguments) -> bool:
    """Check the method's own rule for its arguments."""
    try:
        method.check(arguments)
    except ValueError:
        return False
    return True
