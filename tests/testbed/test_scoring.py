"""Scores of a real model beside lm-eval's own, over every kind of work that the benchmark times."""

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
from mergesearch.tasks import Suite, TaskSpec
from tests.benchmarks.works import WORKS, Work


@pytest.fixture(scope="module")
def model(testbed: Path) -> Any:
    loaded = AutoModelForCausalLM.from_pretrained(testbed / "base", dtype=torch.float32)
    return loaded.eval().requires_grad_(False)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_every_document_is_answered_as_lm_eval_answers_it(
    testbed: Path, model: Any, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
    n = 3 if work.metric == "exact_match" else 8
    settings: dict[str, Any] = {"num_fewshot": work.num_fewshot, "limit": n}
    replace(work, n_documents=n).write(testbed / "tasks", tmp_path)
    spec = TaskSpec(task=work.name, metric=work.metric, **settings)
    tokenizer = AutoTokenizer.from_pretrained(testbed / "base")
    evaluator = Evaluator(Suite(include_path=(tmp_path,), search=(spec,)), tokenizer)
    (score,) = evaluator.score(model).tasks
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=8),
        tasks=[work.name],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        **settings,
    )
    samples = theirs["samples"][work.name]
    assert list(score.values) == [sample[work.metric] for sample in samples]
    assert score.value == theirs["results"][work.name][f"{work.metric},none"]
    for sample, document in zip(samples, evaluator.tasks()[0].documents, strict=False):
        for request, responses in zip(document, sample["resps"], strict=True):
            want = responses[0]
            if not isinstance(want, str):
                want = pytest.approx(want, abs=1e-4, rel=1e-6)
            assert request.resps[0] == want
