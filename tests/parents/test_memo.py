"""Remembered values: computed once whoever asks, and never beyond the limit."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.parents import Memo
from mergesearch.parents.memo import tensor_bytes


@dataclass(frozen=True)
class Pair:
    left: Tensor
    right: tuple[Tensor, int]


def test_a_value_is_computed_once() -> None:
    memo, calls = Memo(), []

    def compute() -> int:
        calls.append(1)
        return 5

    assert [memo.recall("k", compute) for _ in range(3)] == [5, 5, 5]
    assert memo.recall(("k", 2), lambda: None) is None
    assert memo.recall(("k", 2), lambda: 3) is None  # None is a value
    assert len(calls) == 1


def test_threads_that_ask_at_once_wait_for_one_of_them() -> None:
    memo, calls, start = Memo(), [], threading.Barrier(8)

    def compute() -> Tensor:
        calls.append(1)
        time.sleep(0.05)
        return torch.ones(3)

    def ask(_: int) -> Tensor:
        start.wait()
        return memo.recall("k", compute)

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(ask, range(8)))
    assert len(calls) == 1
    assert all(value is values[0] for value in values)


def test_other_keys_do_not_wait() -> None:
    memo, both = Memo(), threading.Barrier(2, timeout=20)
    with ThreadPoolExecutor(2) as pool:  # each computes only while the other does
        list(pool.map(lambda key: memo.recall(key, both.wait), range(2)))


def test_a_value_may_need_others() -> None:
    memo = Memo()
    assert memo.recall("a", lambda: memo.recall("b", lambda: 2) + 1) == 3


def test_an_error_is_not_remembered() -> None:
    memo = Memo()
    with pytest.raises(ZeroDivisionError):
        memo.recall("k", lambda: 1 // 0)
    assert memo.recall("k", lambda: 4) == 4


@pytest.mark.parametrize(
    ("value", "n_bytes"),
    [
        (torch.ones(3), 12),
        (torch.ones(3).bfloat16(), 6),
        ((torch.ones(3), [torch.ones(2)]), 20),
        (Pair(torch.ones(2), (torch.ones(1), 5)), 12),
        (torch.ones(10)[:2], 40),  # a view keeps all of it alive
        (torch.ones(4).split(2), 16),  # once
        (3.5, 0),
        (None, 0),
        (Pair, 0),
    ],
    ids=str,
)
def test_the_bytes_of_a_value_are_those_its_tensors_keep(value: object, n_bytes: int) -> None:
    assert tensor_bytes(value) == n_bytes


@given(st.integers(0, 50), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8))))
def test_no_more_is_kept_than_the_limit(limit: int, asked: list[tuple[int, int]]) -> None:
    memo = Memo(4 * limit)
    for key, n in asked:
        value = memo.recall((key, n), lambda n=n: torch.full((n,), n))  # type: ignore[misc]
        assert value.tolist() == [n] * n
        assert memo.n_bytes <= 4 * limit


def test_what_goes_beyond_the_limit_is_computed_each_time() -> None:
    memo, calls = Memo(10), []

    def compute() -> Tensor:
        calls.append(1)
        return torch.ones(3)

    assert [memo.recall("k", compute).tolist() for _ in range(2)] == [[1, 1, 1]] * 2
    assert (len(calls), memo.n_bytes) == (2, 0)
    memo.forget(12)
    memo.recall("k", compute)
    memo.recall("k", compute)
    assert (len(calls), memo.n_bytes, memo.limit_bytes) == (3, 12, 12)
    memo.forget(12)
    assert memo.n_bytes == 0
    memo.recall("k", compute)
    assert len(calls) == 4
