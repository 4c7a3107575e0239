"""The order of documents: every beginning of it is a sample of all."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mergesearch.tasks.order import split_evenly, stratified_order

strata = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=60)


@given(strata)
def test_every_beginning_holds_its_share_of_each_stratum(given: list[str | None]) -> None:
    """Of n members in all, t n are before the time t, give or take one.

    So m documents of K strata end at a time less than K / N from m / N.
    """
    order = stratified_order(given)
    assert sorted(order) == list(range(len(given)))
    total, seen = Counter(given), Counter[str | None]()
    for m, place in enumerate(order, start=1):
        seen[given[place]] += 1
        for stratum, n in total.items():
            share = n / len(given)
            assert abs(seen[stratum] - m * share) < 1 + len(total) * share


@given(strata)
def test_the_order_is_one_for_all(given: list[str | None]) -> None:
    renamed = [("as", stratum) for stratum in given]
    assert stratified_order(given) == stratified_order(renamed)


def test_the_order_is_not_that_of_the_documents() -> None:
    order = stratified_order([None] * 1000)
    early = sum(place < 500 for place in order[:500])
    assert 200 < early < 300


@given(n=st.integers(0, 500), n_blocks=st.integers(1, 40))
def test_parts_are_even_and_complete(n: int, n_blocks: int) -> None:
    parts = split_evenly(n, n_blocks)
    assert len(parts) == n_blocks
    assert [place for part in parts for place in part] == list(range(n))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
