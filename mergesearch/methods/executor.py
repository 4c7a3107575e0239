"""The running of formulas: block by block, perhaps compiled, with a memory."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from mergesearch.methods.formula import ByRow, Formula, plain
from mergesearch.methods.reduce import along_rows, total

T = TypeVar("T")

#: Entries of a block: its temporaries stay in a core's share of the cache.
BLOCK = 131_072


class Recall(Protocol):
    """A memory: gives what was computed under a key before, or computes it."""

    def __call__(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Value of the key."""


class Call(Protocol):
    """A way to call a formula's function, perhaps compiled into one pass over memory."""

    def __call__(
        self,
        formula: Formula,
        base: Tensor | None,
        models: Sequence[Tensor],
        constants: Mapping[str, Any],
    ) -> Any:
        """Formula's values for rows of the inputs, which are as they are stored."""


def compute_anew(key: Hashable, compute: Callable[[], T]) -> T:
    """Compute, and remember nothing."""
    return compute()


@dataclass(frozen=True)
class Executor:
    """Runs formulas over blocks of whole rows.

    No more than a block of float32 is held at once, so that a merge costs the memory of its result
    and not of its temporaries.
    """

    call: Call = plain
    memory: Recall = compute_anew
    #: Entries of a block; a block is whole rows, at least one.
    block: int = BLOCK
    #: The same for heavy formulas: compiled into one pass they have no temporaries, so that a
    #: larger block, which costs fewer calls, stays in the cache as well.
    heavy_block: int = BLOCK
    #: Where blocks are brought to; None: they are computed where the inputs are.
    device: torch.device | None = None

    def values(
        self,
        formula: Formula,
        base: Tensor | None,
        models: Sequence[Tensor],
        *,
        block: int | None = None,
    ) -> Iterator[tuple[slice, Any]]:
        """Formula's values, block by block, with the rows of each.

        Args:
            formula: what is computed.
            base: (rows, columns) as stored, or None.
            models: n tensors of that shape.
            block: entries of a block, if not the executor's.
        """
        whole = {k: v for k, v in formula.constants.items() if not isinstance(v, ByRow)}
        by_row = {k: v.tensor for k, v in formula.constants.items() if isinstance(v, ByRow)}
        entries = block or (self.heavy_block if formula.heavy else self.block)
        for rows in row_ranges(models[0], entries):
            constants = whole | {name: tensor[rows] for name, tensor in by_row.items()}
            if formula.indexed:
                constants["first"] = _first(models[0], rows, self.device or models[0].device)
            base_rows = None if base is None else self._brought(base[rows])
            model_rows = [self._brought(model[rows]) for model in models]
            yield rows, self.call(formula, base_rows, model_rows, constants)

    def sums(
        self,
        formula: Formula,
        base: Tensor | None,
        models: Sequence[Tensor],
        within_rows: torch.dtype = torch.float32,
    ) -> Tensor:
        """Add up the formula's values, of shape (k, rows, columns): float64 (k,).

        Row by row and then in a fixed order, so that neither blocks nor threads change a bit.

        Args:
            formula: gives what is summed.
            base: (rows, columns) as stored, or None.
            models: n tensors of that shape, of one entry at least.
            within_rows: the dtype that a row is summed in; float32 is several times faster.
        """
        values = self.values(formula, base, models)
        parts = [along_rows(value, within_rows) for _, value in values]
        if not parts:
            raise ValueError("a tensor without entries has no sums")
        rows = torch.cat(parts, dim=-1).cpu()  # (k, rows)
        return torch.stack([total(row) for row in rows])

    def _brought(self, rows: Tensor) -> Tensor:
        return rows if self.device is None else rows.to(self.device, non_blocking=True)


def row_ranges(tensor: Tensor, block: int) -> Iterator[slice]:
    """Rows of each block of so many entries, in order."""
    rows, columns = tensor.shape
    if rows and columns:
        step = max(1, block // columns)
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))


def _first(tensor: Tensor, rows: slice, device: torch.device) -> Tensor:
    """Flat index of the first entry of some rows."""
    narrow = tensor.numel() < 2**31
    return torch.tensor(
        rows.start * tensor.shape[1],
        dtype=torch.int32 if narrow else torch.int64,
        device=device,
    )
