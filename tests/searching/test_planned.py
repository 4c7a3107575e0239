"""The memory plan that a run with workers prints."""

from pathlib import Path

import pytest

from mergesearch.parents import default_budget
from mergesearch.runtime import Runtime
from mergesearch.searching import prepare
from mergesearch.searching.runs import _as_planned, _plan
from mergesearch.space import SearchSpace


def test_the_plan_of_workers_is_one_workers_share_and_says_the_drivers_own(family: Path) -> None:
    alone, shared = default_budget(), default_budget(4)
    runtime = Runtime(device="cpu", workers=4)
    planned = _as_planned(runtime)
    assert planned.memory_budget is not None
    assert planned.memory_budget == pytest.approx(shared, rel=0.2)
    assert planned.memory_budget < 0.6 * alone
    setup = prepare(SearchSpace.load(family / "space.yaml"), planned)
    first, *_, last = _plan(setup, runtime)
    assert first.startswith("memory plan of each of 4 workers: peak ")
    assert f"of a budget of {planned.memory_budget / 1e9:.2f} GB" in first
    assert last.startswith("  beside them the driver holds ")


def test_a_budget_that_is_given_is_each_workers_and_other_hosts_have_their_own() -> None:
    given = Runtime(device="cpu", workers=4, memory_budget=10**9)
    assert _as_planned(given) == given
    elsewhere = Runtime(device="cpu", workers=4, ray="first:6379")
    assert _as_planned(elsewhere) == elsewhere
    assert _as_planned(Runtime(device="cpu")) == Runtime(device="cpu")
