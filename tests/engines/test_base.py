"""The table of engines, what an engine keeps, and suites that one cannot answer."""

import gc
import weakref
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch import plugins
from mergesearch.engines import ENGINES, Capabilities, Engine, UnfitRequestError, engine_of
from mergesearch.engines import base as module
from mergesearch.engines.base import EngineFactory
from mergesearch.engines.torch.engine import TorchEngine
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.plugins import Table
from mergesearch.requests import (
    Generation,
    LogLikelihood,
    Request,
    Response,
    RollingLogLikelihood,
)
from mergesearch.runtime import Runtime
from mergesearch.tasks import Suite, TaskSpec

GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


class ConstantEngine:
    """An engine of another package: every continuation is as likely as it is long."""

    capabilities = Capabilities(frozenset({LogLikelihood}))

    def __init__(self, tokenizer: Any, runtime: Runtime) -> None:
        self.loaded: list[Any] = []

    def load(self, model: Any) -> None:
        self.loaded.append(model)

    def unload(self) -> None:
        self.loaded.append(None)

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        return [
            (-float(len(r.continuation)), False) for r in requests if isinstance(r, LogLikelihood)
        ]

    def cost(self, requests: Sequence[Request], config: Any, dtype: Any, device: Any) -> Any:
        return module.Cost(len(requests), 1)

    def describe(self, model: Any) -> dict[str, Any]:
        return {"config": {}}


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers an engine "constant"."""
    entry = EntryPoint("constant", f"{__name__}:ConstantEngine", "mergesearch.engines")
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: [entry])
    table: Table[EngineFactory] = Table(
        "mergesearch.engines",
        EngineFactory,  # type: ignore[type-abstract]
        {"torch": ENGINES["torch"]},
    )
    monkeypatch.setattr(module, "ENGINES", table)
    monkeypatch.setattr("mergesearch.evaluation.evaluator.ENGINES", table)


def test_torch_is_the_engine_unless_another_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    assert isinstance(engine_of(tokenizer), TorchEngine)
    message = "^unknown engine 'tarch'; did you mean 'torch'\\? available: torch, vllm$"
    with pytest.raises(InputError, match=message):
        engine_of(tokenizer, Runtime(engine="tarch"))


@pytest.mark.usefixtures("constant")
def test_an_engine_of_a_package_answers(
    write_task: Callable[..., Path], tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    suite = Suite(include_path=(write_task("t"),), search=(TaskSpec(task="t", metric="acc"),))
    evaluator = Evaluator(suite, tokenizer, Runtime(engine="constant"))
    (score,) = evaluator.score(model).tasks
    # of "no way" and "yes" the second is shorter
    assert score.value == 0.5
    assert {abs(document.margin or 0) for document in score.documents} == {3.0}
    engine: Any = evaluator._engine
    assert engine.loaded == [model, None]


@pytest.mark.usefixtures("constant")
def test_tasks_that_an_engine_cannot_answer_are_named_when_the_suite_is_built(
    write_task: Callable[..., Path], tokenizer: PreTrainedTokenizerFast
) -> None:
    write_task("t")
    folder = write_task("g", **GENERATE)
    specs = TaskSpec(task="t", metric="acc"), TaskSpec(task="g", metric="exact_match")
    suite = Suite(include_path=(folder,), search=specs[:1], held_out=specs)
    with pytest.raises(InputError) as caught:
        Evaluator(suite, tokenizer, Runtime(engine="constant"))
    assert str(caught.value) == (
        "task 'g' asks for generation, which the engine 'constant' does not answer; "
        "drop the task or take another engine (torch)"
    )
    assert Evaluator(suite, tokenizer).tasks("held_out")


def test_answers_are_in_the_order_of_the_requests_whatever_their_kinds(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine: Engine = engine_of(tokenizer)
    engine.load(model)
    requests: list[Request] = [
        Generation("a", {"max_gen_toks": 3}),
        LogLikelihood("a", "b"),
        RollingLogLikelihood("sun"),
        LogLikelihood("a", "moon"),
        Generation("sun", {"max_gen_toks": 3}),
    ]
    answers = engine.answer(requests)
    kinds = str, tuple, float, tuple, str
    assert all(isinstance(a, kind) for a, kind in zip(answers, kinds, strict=True))
    for request, answer in zip(requests, answers, strict=True):
        (alone,) = engine.answer([request])
        assert answer == (alone if isinstance(alone, str) else pytest.approx(alone, abs=1e-4))
    assert engine.answer([]) == []


def test_equal_requests_are_encoded_once(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergesearch.engines.torch.hflm import Harness

    encoded: list[int] = []
    encode = Harness.encode

    def counted(harness: Harness, requests: Any) -> Any:
        encoded.append(len(requests))
        return encode(harness, requests)

    monkeypatch.setattr(Harness, "encode", counted)
    engine = engine_of(tokenizer)
    for _ in range(2):
        engine.load(model)
        engine.answer([LogLikelihood("a", "b"), LogLikelihood("a", "c")])
    engine.answer([LogLikelihood("a", "b")])
    assert encoded == [2, 1]


def test_an_engine_lets_go_of_a_model(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = engine_of(tokenizer)
    model = make_model()
    engine.load(model)
    engine.answer([LogLikelihood("a", "b")])
    kept = weakref.ref(model)
    engine.unload()
    del model
    gc.collect()
    assert kept() is None
    with pytest.raises(RuntimeError, match="after a model was loaded"):
        engine.answer([LogLikelihood("a", "b")])


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (LogLikelihood("a", ""), "a choice has no tokens, or more than the context holds"),
        (LogLikelihood("a", "b" * 20), "a choice has no tokens, or more than the context holds"),
        (Generation("a", {"max_gen_toks": 16}), r"max_gen_toks \(16\) must be less than"),
    ],
)
def test_requests_that_no_batch_can_hold(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, request_: Request, reason: str
) -> None:
    model.config.max_position_embeddings = 16
    engine = engine_of(tokenizer)
    engine.load(model)
    with pytest.raises(UnfitRequestError, match=reason):
        engine.answer([request_])
    assert engine.answer([LogLikelihood("a", "b")])  # it goes on
