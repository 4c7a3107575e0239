"""Requests that share a context, packed behind it in one row.

A multiple-choice document asks for the log-likelihood of several continuations of one context:

    tokens      c0 c1 c2 | x0 | y0 y1        the last token of a continuation is never read
    positions    0  1  2 |  3 |  3  4
    x0 sees      c0 c1 c2  x0
    y1 sees      c0 c1 c2       y0 y1
    logits             *    *    *  *        of the last columns only: rows are padded on the left
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: lm-eval's request: ((context, continuation) text or None, context ids, continuation ids).
Request = tuple[Any, list[int], list[int]]


@dataclass
class Row:
    """A context and the continuations that share it, as (index of the request, token ids)."""

    context: list[int]
    continuations: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def n_scored(self) -> int:
        """Columns whose logits are needed: the context's last, and all after it."""
        return 1 + sum(len(tokens) - 1 for _, tokens in self.continuations)

    @property
    def length(self) -> int:
        """Columns of the row."""
        return len(self.context) - 1 + self.n_scored


@dataclass(frozen=True)
class Batch:
    """Rows as tensors, and where each token of each continuation is scored."""

    ids: Tensor  # (rows, columns)
    positions: Tensor  # (rows, columns)
    segments: Tensor  # (rows, columns): -1 padding, 0 the context, 1 and up the continuations
    #: Columns at the end whose logits are needed.
    n_kept: int
    scored_row: Tensor  # (tokens,)
    scored_column: Tensor  # (tokens,), among the kept columns
    scored_id: Tensor  # (tokens,)
    #: Index of the request that a scored token belongs to, (tokens,).
    owners: np.ndarray

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """Additive mask, (rows, 1, columns, columns): each column sees what the module shows.

        Padding sees padding, for no softmax to be over nothing.
        """
        key, query = self.segments[:, None, None, :], self.segments[:, None, :, None]
        seen = ((key == 0) | (key == query)).tril()
        blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=seen.device)
        return torch.where(seen, torch.zeros_like(blocked), blocked)


def pack(requests: Iterable[Request], longest: int) -> tuple[list[Row], list[int]]:
    """Put requests into rows.

    A row is at most twice as long as its first request alone, so that a batch needs no more than
    twice the memory that it would without packing.

    Args:
        requests: in any order.
        longest: columns that a row may have.

    Returns:
        Rows, the longest first, and the indices of the requests that fit in none.
    """
    rows: list[Row] = []
    unpacked: list[int] = []
    growing: dict[tuple[int, ...], tuple[Row, int]] = {}  # by context: its row, and columns in all
    for i, (_, context, continuation) in enumerate(requests):
        alone = len(context) + len(continuation) - 1
        if not context or not continuation or alone > longest:
            unpacked.append(i)
            continue
        key = tuple(context)
        row, room = growing.get(key, (None, 0))
        if row is None or row.length + len(continuation) - 1 > room:
            row = Row(context)
            rows.append(row)
            growing[key] = row, min(2 * alone, longest)
        row.continuations.append((i, continuation))
    return sorted(rows, key=lambda row: -row.length), unpacked


def batch(rows: Sequence[Row], device: torch.device) -> Batch:
    """The tensors of one forward pass over rows."""
    width, n_kept = max(row.length for row in rows), max(row.n_scored for row in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros_like(ids)
    segments = np.full_like(ids, -1)
    scored: list[np.ndarray] = []  # (4, tokens) each: row, column, token id, owner
    for r, row in enumerate(rows):
        n_context = len(row.context)
        start, end = width - row.length, width - row.length + n_context
        ids[r, start:end], positions[r, start:end] = row.context, np.arange(n_context)
        segments[r, start:end] = 0
        last_of_context = end - 1
        for segment, (owner, tokens) in enumerate(row.continuations, start=1):
            start, end = end, end + len(tokens) - 1
            ids[r, start:end] = tokens[:-1]
            positions[r, start:end] = np.arange(n_context, n_context + len(tokens) - 1)
            segments[r, start:end] = segment
            # A token is scored where the one before it is read.
            columns = np.array([last_of_context, *range(start, end)]) - (width - n_kept)
            block = np.full((4, len(tokens)), r)
            block[1:] = columns, tokens, np.full_like(columns, owner)
            scored.append(block)
    *places, owners = np.concatenate(scored, axis=1)
    scored_row, scored_column, scored_id = (torch.from_numpy(p).to(device) for p in places)
    return Batch(
        ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(positions).to(device),
        segments=torch.from_numpy(segments).to(device),
        n_kept=n_kept,
        scored_row=scored_row,
        scored_column=scored_column,
        scored_id=scored_id,
        owners=owners,
    )
