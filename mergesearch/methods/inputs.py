"""The inputs of a method: the tensors that become one tensor of the merged model."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from mergesearch.methods.declare import is_matrix
from mergesearch.methods.executor import Executor
from mergesearch.methods.factors import Factors
from mergesearch.methods.formula import Formula

T = TypeVar("T")
#: A matrix, whole or by its factors.
M = TypeVar("M", Tensor, Factors)

#: Gives a statistic by its kind and the model's index; None where a tensor has none.
Statistics = Callable[[str, int], Tensor | None]


def no_statistics(kind: str, model: int) -> None:
    """Know of no statistic."""


@dataclass(frozen=True)
class Inputs:
    """The base's and the models' tensors of one name, as rows of their last dimension.

    >>> import torch
    >>> from mergesearch.methods import Inputs
    >>> inputs = Inputs.of(None, [torch.ones(2, 3, 4)], name="model.norm")
    >>> inputs.shape, inputs.n_entries, inputs.is_matrix
    ((6, 4), 24, False)
    """

    #: (rows, columns), as stored; None where the method has no base.
    base: Tensor | None
    #: n tensors of that shape, as stored; they may be read when they are first looked at.
    models: Sequence[Tensor]
    #: The name in the merged model.
    name: str = ""
    #: Dimensions of the tensor before it was seen as rows.
    n_dims: int = 2
    #: Random keys, int32 of shape (n, 2): one pair for each model.
    keys: Tensor | None = None
    #: The tensor's first entry in the flattened model, and the entries of that model.
    flat_range: tuple[int, int] = (0, 1)
    #: The names that the base (None where there is none) and each model are known by: what is
    #: recalled goes by them.
    ids: tuple[Hashable, ...] = ()
    #: What is known of the models beside their tensors; see `statistic`.
    statistics: Statistics = no_statistics
    #: Runs the formulas.
    executor: Executor = field(default_factory=Executor)
    #: Tells if columns are outputs, and rows inputs, of the linear layer whose weight this is.
    find_transposed: Callable[[], bool] = lambda: False
    #: Finds the task vectors' factors.
    find_factors: Callable[[], tuple[Factors, ...] | None] = lambda: None

    @classmethod
    def of(cls, base: Tensor | None, models: Sequence[Tensor], **more: Any) -> "Inputs":
        """Take tensors of any one shape as inputs."""
        return cls(
            None if base is None else as_rows(base),
            tuple(as_rows(model) for model in models),
            n_dims=models[0].dim() if models else 0,
            **more,
        )

    @property
    def _like(self) -> Tensor:
        """A tensor of the inputs' shape, at hand."""
        return self.models[0] if self.base is None else self.base

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self._like.shape
        return rows, columns

    @property
    def n_entries(self) -> int:
        """Rows times columns."""
        return self._like.numel()

    @property
    def device(self) -> torch.device:
        """The device that formulas are computed on."""
        return self.executor.device or self._like.device

    @property
    def is_matrix(self) -> bool:
        """True where the tensor maps one hidden space to another: no vector, no tokens."""
        return is_matrix(self.name, self.n_dims)

    def by_input(self, matrix: M) -> M:
        """Give a matrix of these inputs a column for each of its layer's inputs, and back."""
        return matrix.T if self.find_transposed() else matrix

    @cached_property
    def factors(self) -> tuple[Factors, ...] | None:
        """The task vectors as products of low rank, where all are known as such."""
        return self.find_factors()

    def recall(self, what: str, compute: Callable[[], T]) -> T:
        """Recall a number or tensor that follows from these inputs alone."""
        return self.executor.memory((what, self.ids), compute)

    def statistic(self, kind: str, i: int) -> Tensor | None:
        """Look a statistic of the i-th model up, float32; None where this tensor has none.

        Args:
            kind: "gram" is XᵀX / n, (columns, columns), of the n inputs X that the linear layer
                whose weight this is gets from the model's prompts; "merged gram" the same where
                what precedes the layer is merged; "fisher" the diagonal of the Fisher information,
                (rows, columns). Only kinds that the method's row names can be had.
            i: the model's index.
        """
        return self.statistics(kind, i)

    def only(self, i: int) -> "Inputs":
        """Leave out all models but the i-th."""
        return replace(
            self,
            models=(self.models[i],),
            keys=None if self.keys is None else self.keys[i : i + 1],
            ids=(*self.ids[:1], *self.ids[i + 1 : i + 2]),
            find_factors=lambda: self.factors and self.factors[i : i + 1],
            statistics=lambda kind, _: self.statistics(kind, i),
        )

    def values(self, formula: Formula, *, block: int | None = None) -> Iterator[tuple[slice, Any]]:
        """Formula's values, block by block, with the rows of each; see `Executor.values`."""
        models = (self.base,) if formula.of_base and self.base is not None else self.models
        return self.executor.values(formula, self.base, models, block=block)

    def sums(self, formula: Formula, within_rows: torch.dtype = torch.float32) -> Tensor:
        """Add up the formula's values, float64 (k,); see `Executor.sums`."""
        return self.executor.sums(formula, self.base, self.models, within_rows)


def as_rows(tensor: Tensor) -> Tensor:
    """Tensor as rows of its last dimension; a vector is one row."""
    if tensor.dim() < 2:
        return tensor.reshape(1, -1)
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.numel() else tensor.reshape(0, 1)
