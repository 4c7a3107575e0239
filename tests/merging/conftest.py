"""Tiny relatives to merge, tied and untied, in float32 and bfloat16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mergesearch.recipe import Recipe, read_recipe
from tests import tiny

Read = Callable[[str], Recipe]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `base`, `one`, `two` and `lora`; with `u-` untied, with `h-` in bfloat16.

    Of each base there are the adapters `lora-a` and `lora-b`.
    """
    folder = tmp_path_factory.mktemp("models")
    families: dict[str, dict[str, Any]] = {
        "": {},
        "u-": {"tie_word_embeddings": False},
        "h-": {"dtype": torch.bfloat16},
    }
    for prefix, settings in families.items():
        base = tiny.llama(folder / f"{prefix}base", 0, **settings)
        for seed, name in enumerate(("one", "two"), start=1):
            tiny.llama(folder / f"{prefix}{name}", seed, base=base, **settings)
    tiny.adapter(folder / "lora", folder / "base", 3)
    for prefix in families:
        for seed, name in enumerate(("lora-a", "lora-b"), start=4):
            tiny.adapter(folder / f"{prefix}{name}", folder / f"{prefix}base", seed)
    return folder


@pytest.fixture
def read(models: Path) -> Read:
    """A recipe from YAML that names those folders."""
    return lambda text: read_recipe(text).resolved(models)
