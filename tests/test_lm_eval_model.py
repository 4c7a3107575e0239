"""A recipe under stock lm-eval, beside lm-eval on the checkpoint that is merged from it."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mergesearch.api import merge
from mergesearch.errors import InputError
from mergesearch.integrations.lm_eval import RecipeLM
from tests import tiny

RECIPE = """\
merge_method: linear
models:
  - {model: models/one, parameters: {weight: 0.3}}
  - {model: models/two, parameters: {weight: 0.7}}
"""
GENERATE = {
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "{{choices[label]}}",
    "generation_kwargs": {"until": ["w3"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture
def merged(family: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family with a recipe, and the checkpoint that is merged from it."""
    (family / "recipe.yaml").write_text(RECIPE)
    merge(family / "recipe.yaml", family / "merged")
    tiny.task(family / "tasks", "fourth", 6, seed=4, **GENERATE)
    group = {"group": "both", "task": ["first", "second"]}
    group["aggregate_metric_list"] = [{"metric": "acc"}]  # type: ignore[list-item]
    (family / "tasks" / "both.yaml").write_text(json.dumps(group))
    monkeypatch.chdir(family / "tasks")  # lm-eval finds relative data in the working folder only
    return family


def evaluated(model: str | HFLM, **settings: Any) -> dict[str, Any]:
    manager = TaskManager(include_path=".", include_defaults=False)
    results = lm_eval.simple_evaluate(
        model, tasks=["both", "fourth"], task_manager=manager, bootstrap_iters=0, **settings
    )
    assert results is not None
    return results


def answers(results: dict[str, Any]) -> dict[str, Any]:
    """What was said to each request."""
    return {
        name: [sample["resps"] for sample in samples]
        for name, samples in results["samples"].items()
    }


def test_a_recipe_scores_as_the_checkpoint_merged_from_it(merged: Path) -> None:
    assert get_model("mergesearch") is RecipeLM
    checkpoint = HFLM(pretrained=str(merged / "merged"), dtype="float32", device="cpu")
    expected = evaluated(checkpoint)
    for args in (
        f"recipe={merged / 'recipe.yaml'},dtype=float32",
        {"recipe": str(merged / "merged"), "memory_budget": 10**10},
    ):
        got = evaluated("mergesearch", model_args=args, device="cpu", batch_size=1)
        assert got["results"] == expected["results"]
        assert answers(got) == answers(expected)
        assert got["max_length"] == expected["max_length"] == 128
        assert got["tokenizer_bos_token"] == expected["tokenizer_bos_token"]
        for key in ("model_num_parameters", "model_dtype"):
            assert got["config"][key] == expected["config"][key]


def test_an_adapter_is_a_recipe_too(family: Path) -> None:
    base, adapter = family / "models" / "base", family / "adapter"
    tiny.adapter(adapter, base, 6)
    model = RecipeLM(f"{base}+{adapter}", device="cpu")
    peft = HFLM(pretrained=str(base), peft=str(adapter), dtype="float32", device="cpu")
    ids = torch.tensor([[4, 5, 6, 7]])
    assert torch.allclose(model._model_call(ids), peft._model_call(ids), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_options_are_those_of_a_model_in_memory(merged: Path, dtype: Any) -> None:
    model = RecipeLM(
        merged / "recipe.yaml", dtype=dtype, batch_size="auto", max_batch_size=8, max_length=32
    )
    assert model.model.dtype == torch.bfloat16
    assert (model.batch_size, model.max_batch_size, model.max_length) == ("auto", 8, 32)


def test_cuda_where_there_is_none_is_no_error(
    merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval's command line asks for it where the user asks for nothing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        "mergesearch.integrations.lm_eval.choose_device",
        lambda name: torch.device("cpu", 0) if name == "auto" else None,
    )
    assert RecipeLM(merged / "recipe.yaml", device="cuda:0").device.type == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "^the model mergesearch needs a recipe: --model_args recipe=PATH$"),
        ({"recipe": "no.yaml"}, "^no such file: no.yaml"),
        (
            {"recipe": "../recipe.yaml", "max_lenght": 3},
            "^unknown argument of the model mergesearch 'max_lenght'; did you mean 'max_length'",
        ),
        (
            {"recipe": "../recipe.yaml", "peft": "adapter"},
            "^unknown argument of the model mergesearch 'peft'; available: recipe, device, dtype",
        ),
        ({"recipe": "../recipe.yaml", "dtype": "int8"}, "^dtype must be auto, .* got 'int8'$"),
        ({"recipe": "../recipe.yaml", "dtype": "nope"}, "^dtype must be auto, .* got 'nope'$"),
        (
            {"recipe": "../recipe.yaml", "memory_budget": "lots"},
            "^memory_budget must be in bytes, got 'lots'$",
        ),
        ({"recipe": "../recipe.yaml", "device": "tpu9"}, "^device must be auto, cpu, cuda or mps"),
    ],
)
def test_bad_arguments_are_one_line(merged: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RecipeLM.create_from_arg_obj(arguments)
    assert "\n" not in str(caught.value)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mergesearch", "lm-eval", *arguments],
        cwd=folder / "tasks",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow  # lm-eval's command line indexes all of its own tasks
def test_the_command_is_lm_evals_own(merged: Path) -> None:
    done = run(
        merged,
        *("run", "--model", "mergesearch", "--model_args", "recipe=../recipe.yaml"),
        *("--tasks", "both,fourth", "--include_path", ".", "--output_path", "../out"),
        *("--log_samples", "--device", "cpu", "--limit", "5"),
    )
    assert done.returncode == 0, done.stderr
    (file,) = (merged / "out").rglob("results_*.json")
    results = json.loads(file.read_text())
    checkpoint = HFLM(pretrained=str(merged / "merged"), dtype="float32", device="cpu")
    expected = evaluated(checkpoint, limit=5)
    for name, metrics in expected["results"].items():
        values = {k: v for k, v in metrics.items() if "," in k and "_stderr" not in k}
        assert values.items() <= results["results"][name].items()
    assert results["config"]["model_args"] == {"recipe": "../recipe.yaml"}
    assert "mergesearch ({'recipe': '../recipe.yaml'})" in done.stdout


@pytest.mark.slow
def test_a_bad_recipe_ends_the_command_in_one_line(merged: Path) -> None:
    arguments = ("--model", "mergesearch", "--model_args", "recipe=../no.yaml")
    done = run(merged, *arguments, "--tasks", "first.yaml")  # `run` may be left out, as there
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "mergesearch: no such file: ../no.yaml"
    assert "Traceback" not in done.stderr


def test_the_commands_help_is_lm_evals(merged: Path) -> None:
    done = run(merged, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: lm-eval ")


def test_the_entry_point_names_the_model() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    ((name, target),) = project["entry-points"]["lm_eval.models"].items()
    module, _, attribute = target.partition(":")
    assert name == "mergesearch"
    assert getattr(import_module(module), attribute) is RecipeLM
