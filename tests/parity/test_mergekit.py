"""The recipes that we write, run by mergekit 0.1.5 in its own environment, give our tensors.

Set up by `make peers`, or elsewhere and named by the variable MERGEKIT_YAML.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mergesearch import merge
from mergesearch.recipe import Recipe, read_recipe, write_recipe
from tests import tiny

EXECUTABLE = Path(
    os.environ.get("MERGEKIT_YAML")
    or Path(__file__).parents[2] / ".venv-mergekit" / "bin" / "mergekit-yaml"
)
pytestmark = [
    pytest.mark.mergekit,
    pytest.mark.skipif(
        not EXECUTABLE.exists(), reason=f"no mergekit at {EXECUTABLE}: `make peers` sets it up"
    ),
]
OPTIONS = ["--quiet", "--random-seed", "1", "--lora-merge-dtype", "float32"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

# What the console script calls, for many recipes in one process: its imports take seconds.
DRIVER = """
import json, sys, traceback
from mergekit.scripts.run_yaml import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(args=arguments, standalone_mode=False)
    except Exception:
        print(arguments, file=sys.stderr)
        traceback.print_exc()
"""

EXACT = {
    "linear": """
merge_method: linear
models:
  - {model: base, parameters: {weight: 0.3}}
  - {model: one, parameters: {weight: [0.1, 0.9]}}
  - {model: two, parameters: {weight: [{filter: mlp, value: [1, 0.5, 0.2]}, {value: -0.2}]}}
""",
    "linear, not normalized, of slices of untied models": """
merge_method: linear
parameters: {normalize: false, weight: 0.4}
slices:
  - sources:
      - {model: u-one, layer_range: [0, 3], parameters: {weight: [0.2, 0.8]}}
      - {model: u-two, layer_range: [0, 3]}
    parameters: {weight: [{filter: self_attn, value: 0.7}]}
  - sources:
      - {model: u-one, layer_range: [3, 4], parameters: {weight: [0.2, 0.6]}}
      - {model: u-two, layer_range: [3, 4], parameters: {weight: [{filter: norm, value: 0.1}]}}
""",
    "slerp": """
merge_method: slerp
base_model: one
models: [{model: one}, {model: two}]
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - {value: 0.5}
""",
    "slerp of slices of untied models": """
merge_method: slerp
base_model: u-base
slices:
  - sources: [{model: u-base, layer_range: [0, 2]}, {model: u-far, layer_range: [2, 4]}]
    parameters: {t: [0.1, 0.6]}
  - sources: [{model: u-base, layer_range: [2, 4]}, {model: u-far, layer_range: [0, 2]}]
parameters: {t: 0.35}
""",
    "task arithmetic with lambda and negation": """
merge_method: task_arithmetic
base_model: base
models:
  - {model: one, parameters: {weight: -0.6}}
  - {model: two, parameters: {weight: [0.2, 1.3]}}
parameters: {lambda: 1.4}
""",
    "task arithmetic, normalized, of slices of untied models": """
merge_method: task_arithmetic
base_model: u-base
slices:
  - sources:
      - {model: u-base, layer_range: [0, 2]}
      - {model: u-one, layer_range: [0, 2], parameters: {weight: 0.5}}
      - {model: u-two, layer_range: [0, 2], parameters: {weight: 1.1}}
    parameters: {normalize: true}
  - sources:
      - {model: u-base, layer_range: [2, 4]}
      - {model: u-two, layer_range: [2, 4], parameters: {weight: [{filter: mlp, value: 0.3}]}}
    parameters: {lambda: 0.5}
parameters: {normalize: false, weight: 0.8}
""",
    "ties": """
merge_method: ties
base_model: base
models:
  - {model: one, parameters: {weight: 0.7, density: [1, 0.3]}}
  - {model: two, parameters: {weight: [{filter: mlp, value: 1.2}, {value: 0.4}], density: 0.43}}
  - {model: three, parameters: {weight: -0.3, density: 0.05}}
parameters: {lambda: 0.9}
""",
    "ties, not normalized, of slices of untied models": """
merge_method: ties
base_model: u-base
slices:
  - sources:
      - {model: u-base, layer_range: [0, 3]}
      - {model: u-one, layer_range: [0, 3], parameters: {density: [0.2, 0.9]}}
      - {model: u-two, layer_range: [0, 3]}
    parameters: {normalize: false}
  - sources:
      - {model: u-base, layer_range: [3, 4]}
      - {model: u-one, layer_range: [3, 4]}
      - {model: u-two, layer_range: [3, 4], parameters: {weight: 0.2}}
parameters: {weight: 0.6, density: 0.5, rescale: true}
""",
    "stacked layers of two untied models": """
merge_method: passthrough
slices:
  - sources: [{model: u-one, layer_range: [0, 3]}]
  - sources:
      - model: u-two
        layer_range: [1, 4]
        parameters: {scale: [{filter: down_proj, value: [0, 0.5]}, {filter: o_proj, value: -0.3}]}
  - sources: [{model: u-far, layer_range: [3, 4]}]
""",
    "stacked layers of two tied models": """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 4]}]
  - sources: [{model: two, layer_range: [2, 4]}]
    parameters: {scale: [{filter: down_proj, value: 0.0}, {value: 1.0}]}
""",
    "adapters": """
merge_method: task_arithmetic
base_model: base
models:
  - {model: base+lora, parameters: {weight: 0.8}}
  - {model: base+other-lora, parameters: {weight: 0.5}}
  - {model: one, parameters: {weight: 0.3}}
""",
    "dare_linear that keeps all": """
merge_method: dare_linear
base_model: base
models:
  - {model: one, parameters: {weight: 0.7}}
  - {model: two, parameters: {weight: -0.2, density: 1}}
parameters: {lambda: 1.2}
""",
    "dare_ties that keeps all, of untied models": """
merge_method: dare_ties
base_model: u-base
models:
  - {model: u-one, parameters: {weight: [0.3, 0.7]}}
  - {model: u-two, parameters: {weight: 0.5}}
tokenizer_source: base
""",
    "bfloat16 models merged into bfloat16": """
merge_method: task_arithmetic
base_model: h-base
models: [{model: h-one, parameters: {weight: 0.6}}]
dtype: float32
out_dtype: bfloat16
""",
}
RANDOM = {
    method: f"""
merge_method: {method}
base_model: base
models: [{{model: one, parameters: {{weight: 1, density: 0.5}}}}]
"""
    for method in ("dare_linear", "dare_ties")
}


@dataclass(frozen=True)
class Ran:
    """The folders that a recipe gave, here and there, and what mergekit printed."""

    recipe: Recipe
    ours: Path
    theirs: Path
    log: str

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        assert self.theirs.exists(), self.log
        return _weights(self.ours), _weights(self.theirs)


def _weights(folder: Path) -> dict[str, Tensor]:
    return {k: t for file in folder.glob("*.safetensors") for k, t in load_file(file).items()}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    families: dict[str, dict[str, Any]] = {
        "": {},
        "u-": {"tie_word_embeddings": False, "intermediate_size": 25},
        "h-": {"dtype": torch.bfloat16},
    }
    for prefix, options in families.items():
        base = tiny.llama(folder / f"{prefix}base", 0, **options)
        for seed, name in enumerate(("one", "two", "three"), start=1):
            tiny.llama(folder / f"{prefix}{name}", seed, base=base, **options)
        tiny.llama(folder / f"{prefix}far", 9, **options)
    tiny.adapter(folder / "lora", folder / "base", 1)
    tiny.adapter(folder / "other-lora", folder / "base", 2, target_modules="all-linear", r=2)
    return folder


@pytest.fixture(scope="session")
def ran(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Every recipe, run by both."""
    out = tmp_path_factory.mktemp("out")
    recipes = {
        name: read_recipe(text).resolved(models) for name, text in {**EXACT, **RANDOM}.items()
    }
    calls, found = [], {}
    for i, (name, recipe) in enumerate(recipes.items()):
        path = out / f"{i}.yaml"
        path.write_text(write_recipe(recipe))
        cache = ["--lora-merge-cache", str(out / "loras")]
        calls.append([str(path), str(out / f"theirs-{i}"), *OPTIONS, *cache])
        merge(recipe, out / f"ours-{i}")
        found[name] = recipe, out / f"ours-{i}", out / f"theirs-{i}"
    done = subprocess.run(
        [EXECUTABLE.with_name("python"), "-c", DRIVER, json.dumps(calls)],
        env=ENVIRONMENT, cwd=out, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return {name: Ran(*parts, log=done.stderr) for name, parts in found.items()}


@pytest.mark.parametrize("name", EXACT)
def test_mergekit_gives_our_tensors_from_our_recipe(ran: dict[str, Ran], name: str) -> None:
    ours, theirs = ran[name].tensors()
    assert ours.keys() == theirs.keys()
    for tensor, expected in theirs.items():
        assert ours[tensor].dtype == expected.dtype, tensor
        assert ours[tensor].shape == expected.shape, tensor
        largest = float(expected.abs().max())
        limit = 1e-6 if expected.dtype == torch.float32 else 2**-8
        gap = float((ours[tensor].double() - expected.double()).abs().max())
        assert gap <= limit * largest, (tensor, gap / largest)


@pytest.mark.parametrize("name", EXACT)
def test_mergekit_gives_our_configuration_from_our_recipe(ran: dict[str, Ran], name: str) -> None:
    ours, theirs = (
        json.loads((folder / "config.json").read_text())
        for folder in (ran[name].ours, ran[name].theirs)
    )
    for key in ("num_hidden_layers", "tie_word_embeddings", "architectures", "vocab_size"):
        assert ours[key] == theirs[key], key


@pytest.mark.parametrize("name", RANDOM)
def test_mergekit_drops_and_rescales_as_we_do(ran: dict[str, Ran], models: Path, name: str) -> None:
    """Of 5,408 entries half are kept, with a standard deviation of 0.7 %; each tensor's L1 norm."""
    base, one = _weights(models / "base"), _weights(models / "one")
    for merged in ran[name].tensors():
        kept = n = 0
        for tensor, value in merged.items():
            delta, full = value - base[tensor], one[tensor] - base[tensor]
            large = full.abs() > 1e-3  # what rounding of W0 + delta cannot hide
            survivors = (delta.abs() > 1e-4) & large
            kept, n = kept + int(survivors.sum()), n + int(large.sum())
            assert float(delta.abs().sum()) == pytest.approx(float(full.abs().sum()), rel=1e-4)
            ratio = delta[survivors] / full[survivors]
            torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=2e-3, atol=0)
        assert kept / n == pytest.approx(0.5, abs=0.035)


def test_mergekit_yaml_runs_the_recipe_of_a_checkpoint(models: Path, tmp_path: Path) -> None:
    recipe = read_recipe(EXACT["ties"]).resolved(models)
    merge(recipe, tmp_path / "ours")
    subprocess.run(
        [EXECUTABLE, "mergekit_config.yml", tmp_path / "theirs", *OPTIONS],
        env=ENVIRONMENT, cwd=tmp_path / "ours", check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    ours, theirs = _weights(tmp_path / "ours"), _weights(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        gap = float((ours[name] - expected).abs().max())
        assert gap <= 1e-6 * float(expected.abs().max()), name
