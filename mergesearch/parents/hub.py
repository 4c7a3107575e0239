"""From a model's name to a folder of this machine."""

import re
from pathlib import Path

from mergesearch.errors import InputError
from mergesearch.parents.adapter import WEIGHTS as ADAPTER_WEIGHTS
from mergesearch.parents.checkpoint import INDEX, SINGLE, read_json
from mergesearch.recipe import ModelPath

# What a checkpoint needs beside its weights, all of it small.
_BESIDE = [
    *("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.bpe", "*.spm", "*.codes"),
    *("*.vocab", "*.tokenizer", "tokenizer.*", "vocab.*", "*.py"),
    *("LICEN?E*", "licen?e*", "NOTICE*", "COPYING*", "TERMS*", "*USE_POLICY*", "*use_policy*"),
]
#: The name of a snapshot's folder in the hub's cache.
_COMMIT = re.compile("[0-9a-f]{40}")


def locate(model: ModelPath, *, weights: bool = True) -> Path:
    """Find the folder of a model: itself when local, else from the hub or its cache.

    Args:
        model: a folder or a repository.
        weights: fetch them with the rest.

    Raises:
        InputError: the folder or repository cannot be found or reached.
    """
    if model.is_local:
        folder = Path(model.path)
        if not folder.is_dir():
            raise InputError(f"no such model folder: {folder}")
        return folder
    folder = _fetched(model, model.revision, _BESIDE)
    if not weights:
        return folder
    # of the commit that the rest is of, should someone push in between; a cache that was made by
    # hand may have folders of other names
    commit = folder.name if _COMMIT.fullmatch(folder.name) else model.revision
    folder = _fetched(model, commit, _weights(folder))
    if not any(folder.glob("*.safetensors")):  # a single file of another name
        folder = _fetched(model, commit, ["*.safetensors"])
    return folder


def _weights(folder: Path) -> list[str]:
    """Name the files that weights are read from; other forms of them are left there."""
    index = read_json(folder / INDEX) if (folder / INDEX).exists() else {}
    shards = index.get("weight_map")
    named = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
    return [SINGLE, ADAPTER_WEIGHTS, *sorted(named)]


def _fetched(model: ModelPath, revision: str | None, patterns: list[str]) -> Path:
    """Give the folder of a snapshot, with those of its files that match a pattern."""
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(model.path, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # huggingface_hub's errors derive from these
        offline = " and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"no folder {model.path!r}, and no such model on the hub or in its cache{offline}: "
            f"{reason}"
        ) from None
