"""The pool of Ray's actors: deaths, doubts and bad starts, by a stand-in for Ray."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from mergesearch.calibration import Computed
from mergesearch.errors import CandidateError, InputError
from mergesearch.recipe import ModelRef, Recipe, read_recipe
from mergesearch.workers import Merged, OtherTensorsError, PoolClosed
from mergesearch.workers.cluster import Cluster
from mergesearch.workers.ray import N_DEATHS, RayPool

RECIPE = read_recipe("{merge_method: passthrough, models: [{model: one}]}")
OTHER = read_recipe("{merge_method: passthrough, models: [{model: two}]}")

Answer = Callable[["FakeActor", Recipe], Any]


@dataclass
class FakeActor:
    """Answers what it is told to; raises what it is given."""

    ray: "FakeRay"
    number: int
    node: str = "here"
    killed: bool = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        class Method:
            def remote(_, *args: Any) -> Callable[[], Any]:
                return lambda: self.ray.answers[name](self, *args)

        return Method()


@dataclass
class FakeRay:
    answers: dict[str, Callable[..., Any]]
    nodes: list[str] = field(default_factory=lambda: ["here"])
    actors: list[FakeActor] = field(default_factory=list)

    def put(self, value: Any) -> Any:
        return value

    def remote(self, cls: type) -> Any:
        return self

    def options(self, **_: Any) -> Any:
        outer = self

        class Made:
            def remote(self, *args: Any) -> FakeActor:
                node = outer.nodes[min(len(outer.actors), len(outer.nodes) - 1)]
                outer.actors.append(FakeActor(outer, len(outer.actors) + 1, node))
                return outer.actors[-1]

        return Made()

    def get_runtime_context(self) -> Any:
        class Context:
            def get_node_id(self) -> str:
                return "here"

        return Context()

    def get(self, reference: Callable[[], Any]) -> Any:
        try:
            return reference()
        except (CandidateError, InputError) as error:
            raise RayTaskError("asked", "a traceback", error) from None

    def kill(self, actor: FakeActor, no_restart: bool) -> None:
        actor.killed = True

    def shutdown(self) -> None: ...


@pytest.fixture
def pool_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RayPool]]:
    pools = []

    def make(ray: FakeRay, n_workers: int = 2, **options: Any) -> RayPool:
        cluster = Cluster(ray, n_workers=n_workers, n_sharing=1, n_devices=0)
        monkeypatch.setattr(Cluster, "connect", lambda *_, **__: cluster)
        pools.append(RayPool(lambda _: None, n_workers, **options))  # type: ignore[arg-type,return-value]
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def where(actor: FakeActor) -> tuple[str, str]:
    return actor.node, f"{actor.node}, process {actor.number}"


def died(actor: FakeActor, *_: Any) -> Any:
    raise ActorDiedError()


def test_what_a_dead_worker_was_asked_is_asked_of_another(
    pool_of: Callable[..., RayPool],
) -> None:
    said: list[str] = []

    def merge(actor: FakeActor, recipe: Recipe) -> Merged:
        return Merged("digest", 1) if actor.number > 2 else died(actor)

    pool = pool_of(FakeRay({"where": where, "merge": merge}), say=said.append)
    with pool.lend() as worker:
        assert worker.merge(RECIPE) == Merged("digest", 1)
        assert worker.name == "worker 3 (here, process 3)" or worker.name.startswith("worker 4")
    assert all("died" in line and "another is started" in line for line in said)
    assert 1 <= len(said) <= 2


def test_a_recipe_on_which_workers_die_fails_and_no_other(pool_of: Callable[..., RayPool]) -> None:
    def merge(actor: FakeActor, recipe: Recipe) -> Merged:
        return Merged("digest", 1) if recipe == OTHER else died(actor)

    pool = pool_of(FakeRay({"where": where, "merge": merge}))
    too_often = pytest.raises(CandidateError, match=f"{N_DEATHS} workers died on it")
    with pool.lend() as worker, too_often:
        worker.merge(RECIPE)
    with pool.lend() as worker:
        assert worker.merge(OTHER) == Merged("digest", 1)


def test_statistics_that_a_worker_has_elsewhere_come_to_the_run(
    pool_of: Callable[..., RayPool], tmp_path: Path
) -> None:
    asked: list[str] = []
    computed = Computed("5f0c", "gram", ModelRef.model_validate("one"), 3)

    def merge(actor: FakeActor, recipe: Recipe) -> Merged:
        return Merged("digest", 1, (computed,))

    def file(actor: FakeActor, key: str, name: str) -> bytes:
        asked.append(f"{key}/{name}")
        return died(actor) if len(asked) == 2 else name.encode()

    def files(actor: FakeActor, key: str) -> list[str]:
        return ["0000.safetensors", "index.json"]

    answers: dict[str, Callable[..., Any]] = {"where": where, "merge": merge}
    answers |= {"statistics_files": files, "statistics_file": file}
    pool = pool_of(FakeRay(answers), statistics=tmp_path)
    with pool.lend() as worker:
        for _ in range(2):
            assert worker.merge(RECIPE).statistics == (computed,)
    assert [file.name for file in tmp_path.iterdir()] == ["5f0c"]
    assert (tmp_path / "5f0c" / "index.json").read_bytes() == b"index.json"
    assert len(asked) == 4  # two before that worker died, and again of another


def test_a_worker_that_merges_otherwise_is_out(pool_of: Callable[..., RayPool]) -> None:
    said: list[str] = []

    def score(actor: FakeActor, *_: Any) -> dict[int, Any]:
        if actor.number == 2:
            raise OtherTensorsError("a model has changed")
        return {}

    ray = FakeRay({"where": where, "score": score})
    pool = pool_of(ray, say=said.append)
    for _ in range(3):
        with pool.lend() as one, pool.lend() as two:
            if {one.name[:8], two.name[:8]} == {"worker 1", "worker 2"}:
                break
    first, second = sorted((one, two), key=lambda lent: lent.name)
    pool.take(), pool.take()  # both are away
    threading.Timer(0.2, lambda: pool.give_back(first.seat)).start()  # type: ignore[attr-defined]
    assert second.score(RECIPE, "digest", "task", [0]) == {}
    assert second.name.startswith("worker 1")
    assert said == ["worker 2 (here, process 2) is out: a model has changed"]
    assert ray.actors[1].killed


def test_what_is_wrong_at_the_start_is_raised(pool_of: Callable[..., RayPool]) -> None:
    def wrong(actor: FakeActor) -> Any:
        raise InputError("models/one: no such folder")

    with (
        pytest.raises(InputError, match="no such folder"),
        pool_of(FakeRay({"where": wrong})).lend(),
    ):
        pass


def test_workers_that_die_while_they_start_are_started_again_but_not_for_ever(
    pool_of: Callable[..., RayPool],
) -> None:
    ray = FakeRay({"where": died})
    with pytest.raises(InputError, match="died while they started"), pool_of(ray).lend():
        pass
    assert len(ray.actors) <= 2 + N_DEATHS + 1


def test_a_host_whose_models_differ_is_refused_by_the_models_name(
    pool_of: Callable[..., RayPool],
) -> None:
    said: list[str] = []

    def digest(actor: FakeActor, recipe: Recipe) -> str:
        return f"{recipe.hash} {'' if recipe == RECIPE else actor.node}"

    ray = FakeRay({"where": where, "digest": digest}, nodes=["here", "there"])
    models = {"one": RECIPE, "two": OTHER}
    pool = pool_of(ray, models=models, digest_of=lambda r: f"{r.hash} ", say=said.append)
    with pool.lend() as worker:
        assert worker.name == "worker 1 (here, process 1)"
        deadline = threading.Event()
        while not said and not deadline.wait(0.01):
            pass
    assert said[0].startswith("worker 2 (there, process 2) is out: two is another model on there")


def test_a_closed_pool_lends_nobody(pool_of: Callable[..., RayPool]) -> None:
    ray = FakeRay({"where": where, "merge": died})
    pool = pool_of(ray)
    with pool.lend() as worker:
        pool.close()
        with pytest.raises(PoolClosed):
            worker.merge(RECIPE)
    with pytest.raises(PoolClosed), pool.lend():
        pass
    assert all(actor.killed for actor in ray.actors)
