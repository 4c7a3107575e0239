"""What a method sees: the tensors that become one tensor of the merged model, block by block."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from mergesearch.methods.declare import is_matrix
from mergesearch.methods.reduce import along_rows, total

T = TypeVar("T")

#: Entries of a block: its temporaries stay in a core's share of the cache.
BLOCK = 131_072


class Recall(Protocol):
    """Gives what was computed under a key before, or computes it."""

    def __call__(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of the key."""


class Call(Protocol):
    """Calls a formula's function, perhaps compiled into one pass over memory."""

    def __call__(
        self,
        formula: "Formula",
        base: Tensor | None,
        models: Sequence[Tensor],
        constants: Mapping[str, Any],
    ) -> Any:
        """What the formula gives for rows of the inputs, which are as they are stored."""


@dataclass(frozen=True)
class ByRow:
    """A constant with a first dimension of one entry for each row."""

    tensor: Tensor


@dataclass(frozen=True)
class Formula:
    """How each row of a result follows from the same row of the inputs.

    `function(base, models, **constants)` takes float32 tensors of shape (rows, columns), any
    number of whole rows of them, and gives a float32 tensor of that shape. It is a pure function
    of a module, so that it can be compiled.
    """

    function: Callable[..., Any]
    #: Tensors, `ByRow` tensors of which the function gets its rows, or plain flags.
    constants: Mapping[str, Any] = field(default_factory=dict)
    #: Whether the function takes `first`, the flat index of its first entry.
    indexed: bool = False
    #: Whether it makes so many temporaries that compiling it into one pass pays.
    heavy: bool = False


def _forget(key: Hashable, compute: Callable[[], T]) -> T:
    return compute()


def plain(
    formula: Formula,
    base: Tensor | None,
    models: Sequence[Tensor],
    constants: Mapping[str, Any],
) -> Any:
    """Call the function as it stands, on float32 copies of what is stored in another dtype."""
    return widened(formula.function, base, models, constants)


def widened(
    function: Callable[..., Any],
    base: Tensor | None,
    models: Sequence[Tensor],
    constants: Mapping[str, Any],
) -> Any:
    """`function(base, models, **constants)` in float32."""
    wide = None if base is None else base.float()
    return function(wide, [model.float() for model in models], **constants)


@dataclass(frozen=True)
class Inputs:
    """The base's tensor and the models' tensors of one name, as rows of their last dimension.

    No method holds more than a block of float32 at once, so that a merge costs the memory of its
    result and not of its temporaries.
    """

    #: (rows, columns), as stored; None where the method has no base.
    base: Tensor | None
    #: n tensors of that shape, as stored.
    models: tuple[Tensor, ...]
    #: The name in the merged model.
    name: str = ""
    #: Dimensions of the tensor before it was seen as rows.
    n_dims: int = 2
    #: Random keys, int32 of shape (n, 2): one pair for each model.
    keys: Tensor | None = None
    #: The tensor's first entry in the flattened model, and how many entries that has.
    place: tuple[int, int] = (0, 1)
    #: What the base (None where there is none) and each model are known by: what is recalled
    #: goes by them.
    ids: tuple[Hashable, ...] = ()
    memory: Recall = _forget
    call: Call = plain
    #: Entries of a block; a block is whole rows, at least one.
    block: int = BLOCK
    #: The same for heavy formulas: compiled into one pass they have no temporaries, so that a
    #: larger block, which costs fewer calls, stays in the cache as well.
    heavy_block: int = BLOCK

    @classmethod
    def of(cls, base: Tensor | None, models: Sequence[Tensor], **more: Any) -> "Inputs":
        """Inputs from tensors of any one shape."""
        return cls(
            None if base is None else as_rows(base),
            tuple(as_rows(model) for model in models),
            n_dims=models[0].dim() if models else 0,
            **more,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.models[0].shape
        return rows, columns

    @property
    def n_entries(self) -> int:
        """Rows times columns."""
        return self.models[0].numel()

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.models[0].device

    @property
    def is_matrix(self) -> bool:
        """Whether the tensor maps one hidden space to another: no vector, no table of tokens."""
        return is_matrix(self.name, self.n_dims)

    def recall(self, what: str, compute: Callable[[], T]) -> T:
        """A number or tensor that follows from these inputs alone, computed once a study."""
        return self.memory((what, self.ids), compute)

    def only(self, i: int) -> "Inputs":
        """The base and the i-th model."""
        return replace(
            self,
            models=(self.models[i],),
            keys=None if self.keys is None else self.keys[i : i + 1],
            ids=(*self.ids[:1], *self.ids[i + 1 : i + 2]),
        )

    def row_ranges(self, block: int) -> Iterator[slice]:
        """The rows of each block of so many entries, in order."""
        rows, columns = self.shape
        if rows and columns:
            step = max(1, block // columns)
            for start in range(0, rows, step):
                yield slice(start, min(start + step, rows))

    def values(self, formula: Formula) -> Iterator[tuple[slice, Any]]:
        """What the formula gives, block by block, with the rows of each."""
        plain = {k: v for k, v in formula.constants.items() if not isinstance(v, ByRow)}
        by_row = {k: v.tensor for k, v in formula.constants.items() if isinstance(v, ByRow)}
        for rows in self.row_ranges(self.heavy_block if formula.heavy else self.block):
            constants = plain | {name: tensor[rows] for name, tensor in by_row.items()}
            if formula.indexed:
                constants["first"] = self._first(rows)
            base = None if self.base is None else self.base[rows]
            models = [model[rows] for model in self.models]
            yield rows, self.call(formula, base, models, constants)

    def sums(self, formula: Formula, within_rows: torch.dtype = torch.float32) -> Tensor:
        """The sums of what the formula gives, a tensor of shape (k, rows, columns): float64 (k,).

        Row by row and then in a fixed order, so that neither blocks nor threads change a bit.

        Args:
            formula: gives what is summed.
            within_rows: what a row is summed in; float32 is several times faster.
        """
        parts = [along_rows(value, within_rows) for _, value in self.values(formula)]
        if not parts:
            raise ValueError("a tensor without entries has no sums")
        rows = torch.cat(parts, dim=-1).cpu()  # (k, rows)
        return torch.stack([total(row) for row in rows])

    def _first(self, rows: slice) -> Tensor:
        narrow = self.n_entries < 2**31
        return torch.tensor(
            rows.start * self.shape[1],
            dtype=torch.int32 if narrow else torch.int64,
            device=self.device,
        )


def as_rows(tensor: Tensor) -> Tensor:
    """A tensor as rows of its last dimension; a vector is one row."""
    if tensor.dim() < 2:
        return tensor.reshape(1, -1)
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.numel() else tensor.reshape(0, 1)


def index_of(first: Tensor, like: Tensor) -> Tensor:
    """The flat index of each entry of a block, of the shape of `like` and the dtype of `first`."""
    here = torch.arange(like.numel(), dtype=first.dtype, device=like.device)
    return (here + first).view(like.shape)


def numbers(values: Sequence[float] | float, inputs: Inputs) -> Tensor:
    """Numbers as a float32 tensor beside the inputs."""
    return torch.tensor(values, dtype=torch.float32, device=inputs.device)


def entrywise(function: Callable[..., Tensor]) -> Callable[..., Formula]:
    """A method that is its function: the parameters are its constants.

    Numbers become float32 tensors; flags and words stay what they are.
    """

    def formula(inputs: Inputs, **parameters: Any) -> Formula:
        return Formula(function, {k: _constant(v, inputs) for k, v in parameters.items()})

    return formula


def _constant(value: Any, inputs: Inputs) -> Any:
    values = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return numbers(value, inputs)
    return value
