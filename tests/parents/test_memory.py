"""Placing parents under a budget: the peak holds, and more memory never keeps fewer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.errors import InputError
from mergesearch.parents.footprint import Footprint
from mergesearch.parents.memory import Memory, MemoryPlan, MemoryRow, plan_memory

GB = 10**9


@st.composite
def footprints(draw: st.DrawFn) -> list[Footprint]:
    """Parents of which some share tensors."""
    tensors = st.dictionaries(st.integers(0, 12), st.just(0), max_size=5)
    sizes = draw(st.lists(st.integers(0, 20), min_size=13, max_size=13))
    return [
        Footprint(
            f"m{i}",
            {key: sizes[key] for key in draw(tensors)},
            draw(st.integers(0, 20)),
        )
        for i in range(draw(st.integers(1, 5)))
    ]


OTHERS = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(
    lambda sizes: [
        MemoryRow("this process so far", sizes[0], "host"),
        MemoryRow("merging", sizes[1], "host"),
    ]
)


def budgets(host: int, device: int | None) -> dict[Memory, int]:
    return {"host": host} if device is None else {"host": host, "device": device}


def resident(plan: MemoryPlan) -> int:
    return sum(residence != "mapped" for residence in plan.residences)


def held(parents: list[Footprint], plan: MemoryPlan, memory: Memory) -> int:
    """What the parents of a memory hold, each tensor once, counted from the places alone."""
    other: Memory = "device"
    elsewhere = {
        key
        for parent, residence in zip(parents, plan.residences, strict=True)
        if residence == other != memory
        for key in parent.kept
    }
    return sum(
        {
            key: n_bytes
            for parent, residence in zip(parents, plan.residences, strict=True)
            if residence == memory
            for key, n_bytes in parent.kept.items()
            if key not in elsewhere
        }.values()
    )


@given(footprints(), OTHERS, st.integers(0, 300), st.none() | st.integers(0, 150))
def test_the_peak_is_within_the_budget_or_it_is_refused(
    parents: list[Footprint], others: list[MemoryRow], host: int, device: int | None
) -> None:
    rest = sum(row.n_bytes for row in others)
    if rest + sum(parent.streamed for parent in parents) > host:
        with pytest.raises(InputError, match="must fit the memory budget"):
            plan_memory(parents, others, budgets(host, device))
        return
    plan = plan_memory(parents, others, budgets(host, device))
    streamed = sum(
        parent.streamed
        for parent, residence in zip(parents, plan.residences, strict=True)
        if residence == "mapped"
    )
    assert plan.peak_bytes == rest + streamed + held(parents, plan, "host") <= plan.budget == host
    assert plan.spare("host") == host - plan.peak_bytes
    if device is None:
        assert "device" not in plan.residences
    else:
        assert plan.peak("device") == held(parents, plan, "device") <= device


@given(
    footprints(),
    OTHERS,
    st.integers(100, 300),
    st.integers(0, 100),
    st.none() | st.tuples(st.integers(0, 100), st.integers(0, 100)),
)
def test_a_larger_budget_never_keeps_fewer(
    parents: list[Footprint],
    others: list[MemoryRow],
    host: int,
    more: int,
    device: tuple[int, int] | None,
) -> None:
    least = sum(row.n_bytes for row in others) + sum(parent.streamed for parent in parents)
    host += least - 100
    small = plan_memory(parents, others, budgets(host, device and device[0]))
    large = plan_memory(parents, others, budgets(host + more, device and sum(device)))
    assert resident(large) >= resident(small)
    assert small.residences[0] == "mapped" or large.residences[0] != "mapped"


@given(footprints(), OTHERS)
def test_all_are_kept_where_there_is_room(
    parents: list[Footprint], others: list[MemoryRow]
) -> None:
    assert set(plan_memory(parents, others, {"host": 10**6}).residences) == {"host"}
    both: dict[Memory, int] = {"host": 10**6, "device": 10**6}
    assert set(plan_memory(parents, others, both).residences) == {"device"}


def models(*sizes: int) -> list[Footprint]:
    """Models of tensors of one gigabyte."""
    return [
        Footprint(f"m{i}", {(i, tensor): GB for tensor in range(size)}, GB)
        for i, size in enumerate(sizes)
    ]


PROCESS = [MemoryRow("this process so far", GB, "host")]


@pytest.mark.parametrize(
    ("budget", "residences"),
    [
        (4, ("mapped", "mapped", "mapped")),
        (11, ("mapped", "mapped", "mapped")),  # the base first, though others would fit
        (12, ("host", "mapped", "mapped")),
        (13, ("host", "mapped", "mapped")),
        (14, ("host", "mapped", "host")),  # then the small one
        (17, ("host", "mapped", "host")),
        (18, ("host", "host", "host")),
    ],
)
def test_the_base_is_kept_first_and_then_the_smallest(
    budget: int, residences: tuple[str, ...]
) -> None:
    assert plan_memory(models(9, 5, 3), PROCESS, {"host": budget * GB}).residences == residences


def test_what_does_not_fit_the_device_is_kept_on_the_host() -> None:
    others = [*PROCESS, MemoryRow("live model", 3 * GB, "device")]
    plan = plan_memory(models(5, 5, 5, 5), others, {"host": 8 * GB, "device": 9 * GB})
    assert plan.residences == ("device", "host", "mapped", "mapped")
    assert (plan.peak_bytes, plan.peak("device")) == (8 * GB, 8 * GB)


def test_what_is_shared_is_held_once() -> None:
    base, one = models(5, 5)
    adapter = Footprint("m+a", {**base.kept, "delta": GB}, 2 * GB)
    plan = plan_memory([base, one, adapter], PROCESS, {"host": 9 * GB})
    assert plan.residences == ("host", "mapped", "host")
    assert plan.peak_bytes == 8 * GB


def test_a_plan_is_a_table() -> None:
    others = [*PROCESS, MemoryRow("live model", GB // 2, "host")]
    plan = plan_memory(models(2, 14), others, {"host": 6 * GB})
    assert str(plan).splitlines() == [
        "memory plan: peak 4.50 GB of a budget of 6.00 GB",
        "  this process so far     1.00 GB  host",
        "  m0                      2.00 GB  host",
        "  m1                      1.00 GB  mapped",
        "  live model              0.50 GB  host",
    ]
    others.append(MemoryRow("merging", GB, "device"))
    plan = plan_memory(models(2), others, {"host": 6 * GB, "device": 2 * GB})
    assert plan.lines()[0] == (
        "memory plan: peak 3.50 GB of a budget of 6.00 GB, "
        "peak 1.00 GB of a budget of 2.00 GB on the device"
    )


def test_too_small_a_budget_is_refused_with_its_parts() -> None:
    others = [*PROCESS, MemoryRow("live model", 2 * GB, "host"), MemoryRow("reading", 0, "host")]
    with pytest.raises(InputError) as caught:
        plan_memory(models(5, 5), others, {"host": 4 * GB})
    assert str(caught.value) == (
        "what a merge holds while it streams every model must fit the memory budget, got 5.00 GB "
        "(this process so far 1.00 GB, live model 2.00 GB, m0 1.00 GB, m1 1.00 GB) for a budget of "
        "4.00 GB; raise the budget, or merge fewer or smaller models"
    )
    assert plan_memory(models(5, 5), others, {"host": 5 * GB}).residences == ("mapped", "mapped")
    device = [*PROCESS, MemoryRow("live model", 2 * GB, "device")]
    with pytest.raises(InputError, match=r"on the device .* got 2.00 GB \(live model 2.00 GB\)"):
        plan_memory(models(5), device, {"host": 9 * GB, "device": GB})
