"""Contexts, groups, rows and batches: what goes where."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.engines.torch.packing import (
    Context,
    Group,
    TokenPair,
    batch_of,
    contexts_of,
    groups_of,
    rows_of,
)

CPU = torch.device("cpu")
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8)
REQUESTS = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=20)


def numbered(requests: Sequence[TokenPair]) -> list[tuple[int, list[int], list[int]]]:
    return [(i, *request) for i, request in enumerate(requests)]


def groups(*contexts: list[int], least_saving: int | None = 1) -> list[tuple[int, list[list[int]]]]:
    found = groups_of([Context(tokens) for tokens in contexts], least_saving)
    return [(group.n_prefix, [context.tokens for context in group.contexts]) for group in found]


def test_requests_with_one_context_share_it_until_a_row_is_full() -> None:
    requests: list[TokenPair] = [
        ([1, 2, 3], [4, 5]),
        ([1, 2], [7]),
        ([1, 2, 3], [6, 7, 8]),
        ([1, 2, 3], [9] * 6),  # 3 + 1 + 2 + 5 columns
        ([1, 2], [8]),
    ]
    found = contexts_of(numbered(requests), n_columns=10)
    assert [(c.tokens, [i for i, _ in c.continuations]) for c in found] == [
        ([1, 2, 3], [0, 2]),
        ([1, 2], [1, 4]),
        ([1, 2, 3], [3]),
    ]
    assert [(c.n_columns(), c.n_columns(2), c.n_kept) for c in found] == [
        (6, 4, 4),
        (2, 0, 1),
        (8, 6, 6),
    ]


def test_a_prefix_is_what_all_of_a_group_begin_with() -> None:
    assert groups([1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 4]) == [
        (2, [[1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 4]])
    ]


def test_the_last_token_of_a_context_is_never_in_the_prefix() -> None:
    assert groups([1, 2, 3], [1, 2, 3, 4]) == [(2, [[1, 2, 3], [1, 2, 3, 4]])]
    assert groups([1], [1, 2]) == [(0, [[1], [1, 2]])]


def test_one_that_begins_otherwise_does_not_spoil_a_group() -> None:
    alike = [[7] * 20 + [i] for i in range(4)]
    assert groups([5, 5], *alike, [9, 1]) == [(20, alike), (0, [[5, 5], [9, 1]])]


def test_a_prefix_must_save_enough() -> None:
    two = [[1, 2, 3, 4], [1, 2, 3, 5]]
    assert groups(*two, least_saving=3) == [(3, two)]
    assert groups(*two, least_saving=4) == [(0, two)]
    assert groups(*two, least_saving=None) == [(0, two)]


@given(requests=REQUESTS, saving=st.integers(0, 6), n_columns=st.integers(1, 12))
def test_every_request_is_in_one_place_of_one_row(
    requests: list[TokenPair], saving: int, n_columns: int
) -> None:
    owners = []
    for group in groups_of(contexts_of(numbered(requests), n_columns), saving):
        for context in group.contexts:
            assert tuple(context.tokens[: group.n_prefix]) == group.prefix
            assert group.n_prefix < len(context.tokens)
        rows = rows_of(group, n_columns)
        widths = [sum(c.n_columns(group.n_prefix) for c in row) for row in rows]
        assert all(w <= n_columns or len(row) == 1 for w, row in zip(widths, rows, strict=True))
        assert widths == sorted(widths, reverse=True)
        for row in rows:
            for context in row:
                for i, continuation in context.continuations:
                    assert (context.tokens, continuation) == requests[i]
                    owners.append(i)
    assert sorted(owners) == list(range(len(requests)))


@settings(deadline=None)
@given(requests=REQUESTS, saving=st.sampled_from([None, 0, 3]))
def test_a_scored_token_stands_behind_all_that_it_follows(
    requests: list[TokenPair], saving: int | None
) -> None:
    """Read along the mask, what a place sees is the request up to the token that it predicts."""
    for group in groups_of(contexts_of(numbered(requests), 10), saving):
        batch = batch_of(group.prefix, rows_of(group, 10), CPU)
        mask = batch.attention_mask(torch.float32)[:, 0] == 0
        assert bool(mask.any(-1).all())
        n_scored = dict.fromkeys(batch.owners.tolist(), 0)
        for place, token, owner in zip(batch.scored_at, batch.scored_id, batch.owners, strict=True):
            row, column = batch.kept_row[place], batch.kept_column[place]
            tokens = torch.cat([torch.tensor(group.prefix, dtype=torch.int64), batch.ids[row]])
            seen = mask[row, column]
            context, continuation = requests[owner]
            k = n_scored[int(owner)]
            n_scored[int(owner)] += 1
            assert tokens[seen].tolist() == [*context, *continuation[:k]]
            positions = torch.cat([torch.arange(len(group.prefix)), batch.positions[row]])
            assert positions[seen].tolist() == list(range(len(context) + k))
            assert int(token) == continuation[k]
        assert n_scored == {i: len(requests[i][1]) for i in n_scored}


def test_the_layout_of_a_batch() -> None:
    """The example in the module's docstring, beside a shorter row."""
    long = Context([1, 2, 3, 10, 11], [(0, [20, 21]), (1, [30, 31, 32])])
    more = Context([1, 2, 3, 12], [(2, [40, 41])])
    short = Context([1, 2, 3, 13], [(3, [50])])
    batch = batch_of((1, 2, 3), [[long, more], [short]], CPU)
    assert batch.ids.tolist() == [[10, 11, 20, 30, 31, 12, 40], [13, 0, 0, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[3, 4, 5, 5, 6, 3, 4], [3, 0, 0, 0, 0, 0, 0]]
    assert batch.nodes.tolist() == [[0, 0, 1, 2, 2, 3, 4], [0, -1, -1, -1, -1, -1, -1]]
    assert batch.parents.tolist() == [[0, 0, 0, 0, 0, 3, 3], [0, -1, -1, -1, -1, -1, -1]]
    kept = list(zip(batch.kept_row.tolist(), batch.kept_column.tolist(), strict=True))
    assert kept == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (1, 0)]
    assert batch.scored_at.tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    assert batch.scored_id.tolist() == [20, 30, 21, 31, 32, 40, 41, 50]
    assert np.array_equal(batch.owners, [0, 1, 0, 1, 1, 2, 2, 3])


def test_a_group_without_a_prefix() -> None:
    group = Group(0, (Context([1, 2], [(0, [3])]),))
    assert group.prefix == ()
    batch = batch_of(group.prefix, rows_of(group, 8), CPU)
    assert batch.attention_mask(torch.float32).shape == (1, 1, 2, 2)
