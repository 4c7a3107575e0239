"""Running mergekit 0.1.5 in its own environment, many recipes in one process.

Set up by `make peers`, or elsewhere and named by the variable MERGEKIT_YAML.
"""

import json
import os
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from torch import Tensor

from mergesearch import merge
from mergesearch.recipe import Recipe, write_recipe
from tests.parity.families import weights

Key = TypeVar("Key", bound=Hashable)

EXECUTABLE = Path(
    os.environ.get("MERGEKIT_YAML")
    or Path(__file__).parents[2] / ".venv-mergekit" / "bin" / "mergekit-yaml"
)
needs_mergekit = [
    pytest.mark.mergekit,
    pytest.mark.skipif(
        not EXECUTABLE.exists(), reason=f"no mergekit at {EXECUTABLE}: `make peers` sets it up"
    ),
]
OPTIONS = ["--quiet", "--random-seed", "1", "--lora-merge-dtype", "float32"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

# What the console script calls, for many recipes in one process.
DRIVER = """
import json, sys
from mergekit.scripts.run_yaml import main
errors = []
for arguments in json.load(open(sys.argv[1])):
    try:
        main(args=arguments, standalone_mode=False)
        errors.append("")
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
json.dump(errors, open(sys.argv[2], "w"))
"""
METHODS = """
import json
from mergekit.merge_methods.registry import registered_methods
print(json.dumps({
    method.spec.name: {
        parameter.name: {
            "per_model": parameter.scope.value != "shared",
            "required": parameter.required,
            "default": None if parameter.required else parameter.default,
        }
        for parameter in method.spec.parameters
    }
    for method in registered_methods()
}))
"""


@dataclass(frozen=True)
class Ran:
    """A recipe, the folders that it gives here and gave there, and why mergekit stopped, or ""."""

    recipe: Recipe
    ours: Path
    theirs: Path
    error: str

    def merged(self) -> Path:
        """Our folder, written when it is first asked for."""
        if not self.ours.exists():
            merge(self.recipe, self.ours)
        return self.ours

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Ours and theirs, of the same names, shapes and dtypes."""
        assert not self.error, self.error
        ours, theirs = weights(self.merged()), weights(self.theirs)
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            assert ours[name].dtype == expected.dtype, name
            assert ours[name].shape == expected.shape, name
        return ours, theirs


def run_mergekit(
    recipes: Sequence[str], folder: Path, options: Sequence[str] = OPTIONS
) -> list[tuple[Path, str]]:
    """The folder that mergekit wrote for each YAML text, and the error that stopped it or ""."""
    folder.mkdir(parents=True)
    calls = []
    for i, text in enumerate(recipes):
        (folder / f"{i}.yaml").write_text(text)
        calls.append([f"{i}.yaml", f"theirs-{i}", *options, "--lora-merge-cache", "loras"])
    (folder / "calls.json").write_text(json.dumps(calls))
    run_script(DRIVER, "calls.json", "errors.json", folder=folder)
    errors = json.loads((folder / "errors.json").read_text())
    return [(folder / f"theirs-{i}", error) for i, error in enumerate(errors)]


def run_both(
    recipes: Mapping[Key, Recipe], folder: Path, endings: Mapping[Key, str] | None = None
) -> dict[Key, Ran]:
    """Every recipe, run by mergekit and, once its tensors are asked for, here.

    Args:
        recipes: the recipes.
        folder: a new folder for the results.
        endings: lines that only mergekit reads.
    """
    texts = [write_recipe(r) + (endings or {}).get(key, "") for key, r in recipes.items()]
    theirs = run_mergekit(texts, folder)
    return {
        key: Ran(recipe, folder / f"ours-{i}", *theirs[i])
        for i, (key, recipe) in enumerate(recipes.items())
    }


def registered_methods() -> dict[str, dict[str, dict[str, Any]]]:
    """What mergekit says of the parameters of each of its methods."""
    return json.loads(run_script(METHODS))


def run_script(script: str, *arguments: str | Path, folder: Path = Path()) -> str:
    """Return what a script prints in mergekit's environment."""
    process = _process()
    assert process.stdin
    assert process.stdout
    call = [script, [*map(str, arguments)], str(folder.resolve())]
    print(json.dumps(call), file=process.stdin, flush=True)
    status, out, err = json.loads(process.stdout.readline())
    assert status == 0, err or f"ended by signal {-status}"
    return str(out)


@cache
def _process() -> "subprocess.Popen[str]":
    """Start the process in whose forks scripts run; it ends when nobody writes to it any more."""
    return subprocess.Popen(
        [EXECUTABLE.with_name("python"), Path(__file__).with_name("mergekit_process.py")],
        env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
