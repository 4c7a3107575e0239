"""The models that the parity recipes merge: families of a base and its relatives, one a folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import tiny

# Rows of odd length, a single column, a single row, and more embeddings than the tokenizer has.
ODD = {
    "hidden_size": 9,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 1,
    "vocab_size": 37,
    "tie_word_embeddings": False,
}
# Norms of one entry, matrices of one column.
THIN = {
    "hidden_size": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 5,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "plain": {"intermediate_size": 25},
    "odd": ODD,
    "thin": THIN,
    "half": {"dtype": torch.bfloat16, "hidden_size": 32, "intermediate_size": 48},
    "wide": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
}


def write_families(folder: Path) -> Path:
    """Every family: `base`, its relatives `one`, `two` and `three`, and the unrelated `far`.

    `same` is a copy of the base, `twin` and `triplet` are copies of `one`. Of the family `grid`
    the deltas have a few magnitudes each, sixteenths; that of `small` has a base of zeros and
    deltas near the numbers that mergekit adds against division by zero.
    """
    for family, options in FAMILIES.items():
        base = tiny.llama(folder / family / "base", 0, **options)
        for seed, name in enumerate(("one", "two", "three"), start=1):
            tiny.llama(folder / family / name, seed, base=base, **options)
        tiny.llama(folder / family / "far", 9, **options)
        shutil.copytree(base, folder / family / "same")
        for name in ("twin", "triplet"):
            shutil.copytree(folder / family / "one", folder / family / name)
    plain = folder / "plain"
    tiny.adapter(plain / "lora", plain / "base", 1)
    tiny.adapter(plain / "other-lora", plain / "base", 2, target_modules="all-linear", r=2)
    origin = weights(plain / "base")
    for name in ("base", "same", "one", "twin", "triplet", "two", "three", "far"):
        changed(plain / name, folder / "grid" / name, lambda _, tensor: (tensor * 16).round() / 16)
        changed(
            plain / name, folder / "small" / name, lambda key, tensor: 1e-5 * (tensor - origin[key])
        )
    return folder


def changed(model: Path, folder: Path, change: Callable[[str, Tensor], Tensor]) -> Path:
    """A copy of a model with `change(name, tensor)` in the place of every tensor."""
    shutil.copytree(model, folder)
    merged = {name: change(name, tensor).contiguous() for name, tensor in weights(model).items()}
    save_file(merged, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint."""
    return {k: t for file in folder.glob("*.safetensors") for k, t in load_file(file).items()}
