"""A tiny world for lm-eval: a character tokenizer, random models, and tasks written to disk."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.evaluator
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto import AutoModelForCausalLM

from mergesearch.evaluation import Evaluator
from mergesearch.requests import Request, Response
from mergesearch.runtime import Runtime
from mergesearch.tasks import Suite, TaskSpec

ALPHABET = "\n abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?#<>|=_-"

#: Small enough to run in milliseconds; weights large enough for answers to differ clearly.
_SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SIZES),
    "gpt2": GPT2Config(
        vocab_size=90,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=512,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "gemma3": Gemma3TextConfig(
        **_SIZES,
        head_dim=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        final_logit_softcapping=5.0,
    ),
}

ROWS = [
    {"text": f"{word} is {'up' if i % 3 else 'down'}", "label": i % 2, "answer": word[:2]}
    for i, word in enumerate(
        ["sun", "moonlight", "rain", "a cold wind", "snow", "hail", "fog", "thunder", "ice", "dew"]
    )
]

_ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
#: What a task has unless a test says otherwise: two choices of several tokens each.
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}?",
    "doc_to_choice": ["no way", "yes"],
    "doc_to_target": "label",
    "metric_list": [_ACC, {**_ACC, "metric": "acc_norm"}],
}


def tiny_model(name: str = "llama", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])).eval()
    return model.requires_grad_(False)


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    return tiny_model


@pytest.fixture
def model() -> PreTrainedModel:
    return tiny_model()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<eos>": 0, "<pad>": 1, "<unk>": 2}
    vocabulary |= {character: i for i, character in enumerate(ALPHABET, start=3)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


@pytest.fixture
def write_task(tmp_path: Path) -> Callable[..., Path]:
    """Writes a task YAML, which is also JSON, beside its data; returns their folder."""

    def write(name: str, rows: list[dict[str, Any]] = ROWS, **settings: Any) -> Path:
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
            "test_split": "test",
            **(settings if "output_type" in settings else CHOICE | settings),
        }
        task = {key: value for key, value in task.items() if value is not None}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(task))
        return tmp_path

    return write


@pytest.fixture
def build(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., Evaluator]:
    """An evaluator of one task written before, or of several specs."""

    def build(*tasks: str | TaskSpec, metric: str = "acc", **spec: Any) -> Evaluator:
        specs = tuple(
            task if isinstance(task, TaskSpec) else TaskSpec(task=task, metric=metric, **spec)
            for task in tasks
        )
        suite = Suite(include_path=(tmp_path,), search=specs)
        return Evaluator(suite, tokenizer, Runtime(batch_size=4))

    return build


@pytest.fixture
def lm_eval_run(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """What lm-eval itself makes of a task."""
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.chdir(tmp_path)  # lm-eval finds relative data in the working folder only

    def run(model: PreTrainedModel, task: str, **settings: Any) -> dict[str, Any]:
        harness = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=4)
        manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
        results = lm_eval.simple_evaluate(
            harness, tasks=[task], task_manager=manager, bootstrap_iters=2, **settings
        )
        return {
            "results": results["results"][task],
            "samples": results["samples"].get(task),  # a group has none of its own
            "whole": results,
        }

    return run


def answers_of(evaluator: Evaluator, answer: Callable[[], Any]) -> list[tuple[Request, Response]]:
    """The requests that an evaluator asks its engine while something runs, with the responses."""
    asked: list[tuple[Request, Response]] = []
    engine, reply = evaluator._engine, evaluator._engine.answer

    def spy(requests: Sequence[Request]) -> list[Response]:
        responses = reply(requests)
        asked.extend(zip(requests, responses, strict=True))
        return responses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "answer", spy)
        answer()
    return asked
