"""Texts of a real model by vLLM beside those of the engine `torch`."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.engines import engine_of
from mergesearch.requests import Generation
from mergesearch.runtime import Runtime

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None, reason="needs vLLM, with which `make test-vllm` runs the tests"
)

#: Of the two likeliest next tokens, what logits in float32 may be apart and yet change places.
_TIE = 2e-3
_TEMPLATES = {"trec_dev": "Question: {}\nAnswer:", "sst2_dev": "Review: {}\nIn other words:"}


def prompts(testbed: Path, n: int) -> list[Generation]:
    """As many prompts of each task."""
    asked = []
    for task, template in _TEMPLATES.items():
        data = json.loads((testbed / "tasks" / f"{task}.yaml").read_text())["dataset_kwargs"]
        lines = Path(data["data_files"]["test"]).read_text().splitlines()[:n]
        texts = [template.format(json.loads(line)["text"]) for line in lines]
        asked += [Generation(text, {"until": ["\nQuestion"], "max_gen_toks": 24}) for text in texts]
    return asked


def gap(model: Any, tokenizer: Any, request: Generation, texts: Sequence[str]) -> float:
    """How far apart the logits are of the tokens where two texts part."""
    start = tokenizer(request.prompt)["input_ids"]
    one, other = (tokenizer(request.prompt + text)["input_ids"] for text in texts)
    n = next(i for i, (a, b) in enumerate(zip([*one, -1], [*other, -1], strict=False)) if a != b)
    assert n >= len(start)
    with torch.no_grad():
        logits = model(torch.tensor([one[:n]])).logits[0, -1]
    first, second = logits.topk(2).values.tolist()
    return float(first - second)


@pytest.mark.timeout(3600)
def test_texts_are_those_of_the_engine_torch(testbed: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(testbed / "base", dtype=torch.float32)
    model.eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(testbed / "base")
    requests = prompts(testbed, 100)
    answers = {}
    for name in ("torch", "vllm"):
        engine = engine_of(tokenizer, Runtime(engine=name))
        engine.load(model)
        answers[name] = [str(answer) for answer in engine.answer(requests)]
    pairs = list(zip(requests, answers["torch"], answers["vllm"], strict=True))
    others = [(request, texts) for request, *texts in pairs if texts[0] != texts[1]]
    gaps = [gap(model, tokenizer, request, texts) for request, texts in others]
    assert len(others) <= 0.02 * len(requests), gaps
    assert all(apart < _TIE for apart in gaps), gaps
    assert len(set(answers["vllm"])) > 100
    print(f"{len(others)} of {len(requests)} texts differ, at logits apart by {gaps}")
