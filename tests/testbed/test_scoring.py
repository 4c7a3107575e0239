"""Scores of a real model beside lm-eval's own, over every workload that the benchmark times."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.evaluator
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.evaluation import Evaluator
from mergesearch.scores import Scores
from mergesearch.tasks import Suite, TaskSpec
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.evaluating import answers_of


@pytest.fixture(scope="module")
def model(testbed: Path) -> Any:
    loaded = AutoModelForCausalLM.from_pretrained(testbed / "base", dtype=torch.float32)
    return loaded.eval().requires_grad_(False)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_every_document_is_answered_as_lm_eval_answers_it(
    testbed: Path, model: Any, workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
    n = 2 if workload.metric == "exact_match" else 4 if workload.num_fewshot else 8
    settings: dict[str, Any] = {"num_fewshot": workload.num_fewshot, "limit": n}
    replace(workload, n_documents=n).write(testbed / "tasks", tmp_path)
    spec = TaskSpec(task=workload.name, metric=workload.metric, **settings)
    tokenizer = AutoTokenizer.from_pretrained(testbed / "base")
    evaluator = Evaluator(Suite(include_path=(tmp_path,), search=(spec,)), tokenizer)
    scored: list[Scores] = []
    answers = answers_of(evaluator, lambda: scored.append(evaluator.score(model)))
    (score,) = scored[0].tasks
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=8),
        tasks=[workload.name],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        **settings,
    )
    samples = theirs["samples"][workload.name]
    assert list(score.values) == [sample[workload.metric] for sample in samples]
    assert score.value == theirs["results"][workload.name][f"{workload.metric},none"]
    wanted = [responses[0] for sample in samples for responses in sample["resps"]]
    for (_, got), want in zip(answers, wanted, strict=True):
        assert got == (want if isinstance(want, str) else pytest.approx(want, abs=1e-4, rel=1e-6))
