"""Several candidates under way at a time: nothing is lost, doubled or waited for."""

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from mergesearch.errors import InputError
from mergesearch.recipe import Recipe
from mergesearch.runs import Record, read_status
from mergesearch.searching import CandidateEvaluator, StatusFile, confirm
from mergesearch.searching.goals import directions, goals_of
from mergesearch.searching.loop import Search
from mergesearch.searching.study import finished, open_study
from mergesearch.space import SearchSpace
from tests.searching.watch import SHAPE, RecordingObserver, load, most_scored, running
from tests.workers.simulated import SimulatedPool, SimulatedWorker, simulated


def searched(
    space: SearchSpace, candidates: CandidateEvaluator, observer: RecordingObserver
) -> Search:
    folder = candidates.record.folder
    study = open_study(folder, "study", directions=directions(space.search.objectives))
    search = Search(study, space, goals_of(space, candidates), candidates, SHAPE, observer)
    search.run()
    return search


def test_a_search_by_several_has_its_exact_number_of_trials(family: Path) -> None:
    space = load(family, search={"trials": 24})
    workers = [SimulatedWorker(f"worker {i}", seconds=0.005) for i in range(4)]
    candidates = simulated(family / "run", space, workers)
    observer = RecordingObserver()
    search = searched(space, candidates, observer)
    trials = finished(search.study)
    assert [trial.number for trial in trials] == list(range(24))
    assert not running(search.study)
    assert most_scored(family / "run") == 1
    assert max(Counter(d for w in workers for d in w.scored).values()) == 1
    assert observer.worked == {worker.name for worker in workers}
    record = Record(family / "run", writable=False)
    assert [trial.number for trial in record.trials] == list(range(24))
    points = Counter(tuple(sorted(trial.params.items())) for trial in trials)
    assert max(points.values()) == 1  # no two workers were given the same
    winner = confirm(search.history, space, candidates, observer)
    rows = Record(family / "run", writable=False).rows
    assert {"winner", "base", "one", "two", "uniform soup"} <= {row.label for row in rows}
    finalists = [row.recipe_hash for row in rows if row.role in ("winner", "finalist")]
    in_full = [candidates.score(record.recipe(one), full=True).total for one in finalists]
    assert len(finalists) > 1
    assert winner.total == max(in_full)  # which the search's part of the documents may not show
    assert most_scored(family / "run") == 1


def test_a_slow_worker_delays_nobody(family: Path) -> None:
    space = load(family, search={"trials": 30, "racing": False, "startup": 30})
    slow = SimulatedWorker("slow", seconds=1.0)
    quick = [SimulatedWorker(f"quick {i}", seconds=0.01) for i in range(2)]
    candidates = simulated(family / "run", space, [slow, *quick])
    searched(space, candidates, RecordingObserver())
    n_slow = len({digest for digest, _, _ in slow.scored})
    n_quick = len({digest for worker in quick for digest, _, _ in worker.scored})
    assert n_slow <= 4
    assert n_quick >= 20


def test_a_budget_of_documents_counts_what_is_under_way(family: Path) -> None:
    space = load(family, search={"trials": 100, "documents": 200, "racing": False})
    workers = [SimulatedWorker(f"worker {i}", seconds=0.01) for i in range(4)]
    candidates = simulated(family / "run", space, workers)
    search = searched(space, candidates, RecordingObserver())
    # a candidate has 20; each of the others may have begun one when the last was asked for
    assert 200 <= search.history.n_documents <= 200 + 4 * 20
    assert sum(t.n_documents for t in search.history.trials) == search.history.n_documents


def test_the_same_tensors_are_scored_once_by_whoever_is_first(family: Path) -> None:
    space = load(family)
    begun, go_on = threading.Event(), threading.Event()

    def wait(recipe: Recipe) -> None:
        begun.set()
        assert go_on.wait(20)

    first, second = SimulatedWorker("first", before=wait), SimulatedWorker("second")
    candidates = simulated(family / "run", space, [first, second])
    recipe = space.soup()
    totals: list[float] = []
    threads = [
        threading.Thread(target=lambda w=w: totals.append(candidates.of(w).score(recipe).total))
        for w in (first, second)
    ]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    time.sleep(0.05)
    assert not second.scored
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert totals[0] == totals[1]
    assert not second.scored
    assert most_scored(family / "run") == 1


def test_what_one_lane_raises_ends_all_and_no_trial_is_told(family: Path) -> None:
    space = load(family, search={"trials": 50})
    broken = SimulatedWorker("broken", before=lambda _: (_ for _ in ()).throw(InputError("full")))
    others = [SimulatedWorker(f"worker {i}", seconds=0.01) for i in range(2)]
    candidates = simulated(family / "run", space, [*others, broken])
    with pytest.raises(InputError, match="full"):
        searched(space, candidates, RecordingObserver())
    assert isinstance(candidates.pool, SimulatedPool)
    assert candidates.pool.closed
    # the next sitting goes on: nothing is lost, and nothing is scored twice
    again = simulated(family / "run", space, others)
    search = searched(space, again, RecordingObserver())
    assert len(finished(search.study)) == 50
    assert most_scored(family / "run") == 1


def test_an_interrupt_ends_all_lanes(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = load(family, search={"trials": 1000})
    workers = [SimulatedWorker(f"worker {i}", seconds=0.02) for i in range(2)]
    candidates = simulated(family / "run", space, workers)
    join = threading.Thread.join
    began, raised = time.monotonic(), list[bool]()

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if time.monotonic() - began > 0.5 and not raised:
            raised.append(True)
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        searched(space, candidates, RecordingObserver())
    assert isinstance(candidates.pool, SimulatedPool)
    assert candidates.pool.closed


def test_what_workers_do_can_be_read_while_they_do_it(tmp_path: Path) -> None:
    with StatusFile(tmp_path) as status:
        status.stage("a stage")
        status.working({"worker 1": "trial 3 ties"})
        deadline = time.monotonic() + 20
        while (found := read_status(tmp_path)) is None or not found.workers:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert found.is_alive
        assert (found.stage, found.workers) == ("a stage", {"worker 1": "trial 3 ties"})
    after = read_status(tmp_path)
    assert after is not None
    assert not after.is_alive
    assert after.ended
    assert not after.workers
