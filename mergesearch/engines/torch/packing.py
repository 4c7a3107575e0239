"""Trees of tokens: a prefix, contexts behind it, continuations behind these.

A multiple-choice document asks for the log-likelihood of several continuations of one context, and
the contexts of a task often begin alike: with its instruction, or the same solved examples. What
is alike runs once. Several contexts, each with its continuations, stand in one row:

    prefix (run before, in the cache)   p0 p1 p2
    tokens                              c0 c1 | x0 | y0 y1 | d0 | z0     last tokens are not read
    positions                            3  4    5    5  6    3    4
    x0 sees                             p0 p1 p2 c0 c1 x0
    y1 sees                             p0 p1 p2 c0 c1 y0 y1
    d0 sees                             p0 p1 p2 d0
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

#: A context's token ids, at least one, and a continuation's.
TokenPair = tuple[list[int], list[int]]

#: Tokens that sharing a prefix must save: about what one more forward pass costs.
LEAST_SAVING = 64


@dataclass
class Context:
    """The token ids of a context, and what is asked after it."""

    tokens: list[int]
    #: (Index of the request, token ids.)
    continuations: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def n_kept(self) -> int:
        """Positions that need the output layer: the context's last, and all after it."""
        return 1 + sum(len(tokens) - 1 for _, tokens in self.continuations)

    def n_columns(self, n_prefix: int = 0) -> int:
        """Count the columns in a row behind a prefix; a last token is never read."""
        asked = sum(len(tokens) - 1 for _, tokens in self.continuations)
        return len(self.tokens) - n_prefix + asked


@dataclass(frozen=True)
class Group:
    """Contexts whose first `n_prefix` tokens are alike and run once."""

    n_prefix: int
    contexts: tuple[Context, ...]

    @property
    def prefix(self) -> tuple[int, ...]:
        """The shared token ids."""
        return tuple(self.contexts[0].tokens[: self.n_prefix])


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass as tensors, and the positions that score continuations."""

    prefix: tuple[int, ...]
    ids: Tensor  # (rows, columns)
    positions: Tensor  # (rows, columns)
    #: Which context or continuation a column is of, -1 where it is padding, (rows, columns).
    nodes: Tensor
    #: The context that a column's continuation stands behind, else as `nodes`, (rows, columns).
    parents: Tensor
    #: Where the output layer is needed, (kept positions,) each, none twice.
    kept_row: Tensor
    kept_column: Tensor
    #: Of each scored token the kept position that predicts it, rising, its id, and the request,
    #: (tokens,).
    scored_at: Tensor
    scored_id: Tensor
    owners: np.ndarray

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """Make the additive mask, (rows, 1, columns, prefix and columns); see the module.

        Padding sees padding, for no softmax to be over nothing.
        """
        nodes, parents = self.nodes[:, None, :, None], self.parents[:, None, :, None]
        key = self.nodes[:, None, None, :]
        seen = ((key == nodes) | (key == parents)).tril()
        blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=seen.device)
        mask = torch.where(seen, torch.zeros_like(blocked), blocked)
        return torch.nn.functional.pad(mask, (len(self.prefix), 0))


def contexts_of(
    requests: Iterable[tuple[int, list[int], list[int]]], n_columns: int
) -> list[Context]:
    """Gather requests, each with its index, by their contexts.

    A context is there again where the continuations behind it would fill more than a row of
    `n_columns`, and more than twice what the first of them needs: a batch's memory is that of its
    longest row.
    """
    contexts: list[Context] = []
    growing: dict[tuple[int, ...], tuple[Context, int]] = {}  # and the columns it may come to
    for i, context, continuation in requests:
        key, alone = tuple(context), len(context) + len(continuation) - 1
        same, room = growing.get(key, (None, 0))
        if same is None or same.n_columns() + len(continuation) - 1 > room:
            same = Context(context)
            contexts.append(same)
            growing[key] = same, max(2 * alone, n_columns)
        same.continuations.append((i, continuation))
    return contexts


def groups_of(contexts: Sequence[Context], least_saving: int | None) -> list[Group]:
    """Group contexts by the prefix that they share, in the order of their tokens.

    Args:
        contexts: in any order.
        least_saving: tokens that sharing a prefix must save, for one more forward pass to pay;
            None shares none.
    """
    if least_saving is None:
        return [Group(0, tuple(contexts))] if contexts else []
    ordered = sorted(contexts, key=lambda context: context.tokens)
    alone: list[Context] = []
    groups: list[Group] = []
    for start, end, n_prefix in _runs([context.tokens for context in ordered]):
        if (end - start - 1) * n_prefix >= max(least_saving, 1):
            groups.append(Group(n_prefix, tuple(ordered[start:end])))
        else:
            alone += ordered[start:end]
    return [*groups, Group(0, tuple(alone))] if alone else groups


def _runs(ordered: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Find neighbours to run behind one prefix: (start, end, length of the prefix).

    From the neighbours that are most alike to those that are least, two runs become one where a
    prefix for both saves no less than one for each.
    """
    # The last token of a sequence is never shared: what it predicts is a row's to score.
    n_alike = [min(_n_alike(a, b), len(a) - 1, len(b) - 1) for a, b in pairwise(ordered)]
    runs = {i: (i, i + 1, len(tokens) - 1) for i, tokens in enumerate(ordered)}
    first = list(range(len(ordered)))  # of a run's last member: the run's key
    for i in sorted(range(len(n_alike)), key=lambda i: -n_alike[i]):
        a, b = runs[first[i]], runs[i + 1]
        saved = sum((end - start - 1) * n_prefix for start, end, n_prefix in (a, b))
        if (b[1] - a[0] - 1) * n_alike[i] >= saved:
            del runs[i + 1]
            runs[a[0]] = (a[0], b[1], n_alike[i])
            first[b[1] - 1] = a[0]
    return sorted(runs.values())


def rows_of(group: Group, n_columns: int) -> list[list[Context]]:
    """Put contexts into rows of so many columns, or one to a row; the longest first."""
    n_prefix = group.n_prefix
    rows: list[tuple[int, list[Context]]] = []
    for context in sorted(group.contexts, key=lambda context: -context.n_columns(n_prefix)):
        width = context.n_columns(n_prefix)
        fitting = (k for k, (used, _) in enumerate(rows) if used + width <= n_columns)
        k = next(fitting, None)
        if k is None:
            rows.append((width, [context]))
        else:
            used, members = rows[k]
            rows[k] = (used + width, [*members, context])
    return [members for _, members in sorted(rows, key=lambda row: -row[0])]


def batch_of(
    prefix: tuple[int, ...], rows: Sequence[Sequence[Context]], device: torch.device
) -> Batch:
    """Lay out the tensors of one forward pass over rows of contexts behind a prefix."""
    n_prefix = len(prefix)
    width = max(sum(context.n_columns(n_prefix) for context in row) for row in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros_like(ids)
    nodes, parents = np.full_like(ids, -1), np.full_like(ids, -1)
    kept: list[tuple[int, int]] = []
    scored: list[tuple[int, int, int]] = []  # kept position, token id, owner
    for r, row in enumerate(rows):
        column = node = 0
        for context in row:
            own = context.tokens[n_prefix:]
            here = slice(column, column + len(own))
            ids[r, here], positions[r, here] = own, np.arange(n_prefix, n_prefix + len(own))
            nodes[r, here] = parents[r, here] = parent = node
            column, node = here.stop, node + 1
            last_of_context = len(kept)
            kept.append((r, column - 1))
            for owner, tokens in context.continuations:
                # A token is predicted where the one before it is read.
                read = tokens[:-1]
                here = slice(column, column + len(read))
                ids[r, here] = read
                first = len(context.tokens)
                positions[r, here] = np.arange(first, first + len(read))
                nodes[r, here], parents[r, here] = node, parent
                predicted_at = [last_of_context, *range(len(kept), len(kept) + len(read))]
                kept += [(r, c) for c in range(here.start, here.stop)]
                scored += [
                    (at, token, owner) for at, token in zip(predicted_at, tokens, strict=True)
                ]
                column, node = here.stop, node + 1
    # in the order of their positions, for logits to be looked at a few positions at a time
    scored_at, scored_id, owners = np.array(sorted(scored, key=itemgetter(0))).T

    def tensor(numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(device)

    return Batch(
        prefix=prefix,
        ids=tensor(ids),
        positions=tensor(positions),
        nodes=tensor(nodes),
        parents=tensor(parents),
        kept_row=tensor(np.array(kept)[:, 0]),
        kept_column=tensor(np.array(kept)[:, 1]),
        scored_at=tensor(scored_at),
        scored_id=tensor(scored_id),
        owners=owners,
    )


def _n_alike(a: Sequence[int], b: Sequence[int]) -> int:
    """Count the tokens of the longest common prefix."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
