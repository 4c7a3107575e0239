"""Merging, scoring and searching on a GPU, with what was measured in results/benchmarks."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.api import search
from mergesearch.engines import engine_of
from mergesearch.requests import Generation, LogLikelihood, Request
from mergesearch.runtime import Runtime
from mergesearch.space import SearchSpace

ENGINES = [
    "torch",
    pytest.param(
        "vllm", marks=pytest.mark.skipif(find_spec("vllm") is None, reason="needs the extra vllm")
    ),
]
SPACE = """\
base: base
parents:
  sst2: base+adapters/sst2
  trec: base+adapters/trec
methods: {task_arithmetic: {}, ties: {}}
suite: suite.yaml
search: {trials: 4}
"""
SUITE = """\
include_path: tasks
search:
  - {task: sst2_dev, metric: acc, limit: 40}
  - {task: trec_texts, metric: exact_match, limit: 40}
"""


@pytest.mark.parametrize("name", ["merge", "evaluate"])
def test_a_benchmark_runs_on_the_gpu(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--device", "cuda"]
    subprocess.run([*command, "--repeats", "2", "--out", str(tmp_path)], check=True)
    facts = json.loads((tmp_path / f"{name}.json").read_text())["machine"]
    assert facts["device"] == torch.cuda.get_device_name()
    print((tmp_path / f"{name}.md").read_text())


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_answers_as_torch_does_on_the_cpu(testbed: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(testbed / "base")
    requests: list[Request] = [
        *(Generation(f"Compute: {i} + {i + 3} =", {"max_gen_toks": 8}) for i in range(32)),
        *(LogLikelihood(f"The number after {i} is", f" {i + 1}") for i in range(32)),
    ]
    answers: dict[str, list[Any]] = {}
    for engine_name, device in (("torch", "cpu"), (name, "cuda")):
        model = AutoModelForCausalLM.from_pretrained(testbed / "base", dtype=torch.float32)
        engine = engine_of(tokenizer, Runtime(engine=engine_name, device=device))
        engine.load(model.to(device).eval().requires_grad_(False))
        answers[device] = engine.answer(requests)
    pairs = list(zip(answers["cpu"], answers["cuda"], strict=True))
    assert sum(a == b for a, b in pairs[:32]) >= 31
    for (expected, _), (got, _) in pairs[32:]:
        assert got == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("name", ENGINES)
def test_a_search_of_the_test_bed(testbed: Path, tmp_path: Path, name: str) -> None:
    task = json.loads((testbed / "tasks" / "trec_dev.yaml").read_text())
    types = task.pop("doc_to_choice")
    task |= {
        "task": "trec_texts",
        "output_type": "generate_until",
        "doc_to_target": "{{" + f"{types}[label]" + "}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        "filter_list": [{"name": "strip", "filter": [{"function": "remove_whitespace"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (testbed / "tasks" / "trec_texts.yaml").write_text(json.dumps(task))
    (testbed / "suite.yaml").write_text(SUITE)
    (testbed / "space.yaml").write_text(SPACE)
    space = SearchSpace.load(testbed / "space.yaml")
    outcome = search(space, tmp_path / "run", device="cuda", engine=name)
    assert 0.2 < outcome.best.scores.total <= 1
    print(f"{name}: {outcome.best.scores.total:.3f} by {outcome.best.recipe.merge_method}")
