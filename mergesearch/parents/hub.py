"""From a model's name to a folder of this machine."""

from pathlib import Path

from mergesearch.errors import InputError
from mergesearch.recipe import ModelPath

# Weights as safetensors only; what else a checkpoint needs is small.
_WEIGHTS = "*.safetensors"
_PATTERNS = [
    *("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.bpe", "*.spm", "*.codes"),
    *("*.vocab", "*.tokenizer", "tokenizer.*", "vocab.*", "*.py"),
    *("LICEN?E*", "licen?e*", "NOTICE*", "COPYING*", "TERMS*", "*USE_POLICY*", "*use_policy*"),
]


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
    from huggingface_hub import constants, snapshot_download

    patterns = [_WEIGHTS, *_PATTERNS] if weights else _PATTERNS
    try:
        return Path(snapshot_download(model.path, revision=model.revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # huggingface_hub's errors derive from these
        offline = " and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"no folder {model.path!r}, and no such model on the hub or in its cache{offline}: "
            f"{reason}"
        ) from None
