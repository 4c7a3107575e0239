"""Tensors with one row a token: embeddings, output heads and their biases."""

from collections.abc import Mapping
from typing import Any

from mergesearch.parents.architecture import LANGUAGE_KEYS
from mergesearch.parents.checkpoint import EMBEDDINGS, Checkpoint

#: The last parts of the names of tensors that have one row a token.
TABLES = (
    *(*EMBEDDINGS, "lm_head.weight", "lm_head.bias", "embed_out.weight"),
    *("lm_head.decoder.weight", "lm_head.decoder.bias", "predictions.bias"),
    *("predictions.decoder.weight", "predictions.decoder.bias", "shared_head.head.weight"),
)


def with_vocab_size(config: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    """Say in a configuration, and its language model's, how many rows there are."""
    parts = {key: config[key] for key in LANGUAGE_KEYS if isinstance(config.get(key), Mapping)}
    changed: dict[str, Any] = {key: {**of, "vocab_size": n_rows} for key, of in parts.items()}
    if "vocab_size" in config or not parts:
        changed["vocab_size"] = n_rows
    return {**config, **changed}


def has_rows(name: str) -> bool:
    """Check whether a tensor has one row a token."""
    return any(name == known or name.endswith(f".{known}") for known in TABLES)


def n_rows(checkpoint: Checkpoint) -> int:
    """Count the rows of a model's embedding."""
    for name, spec in checkpoint.specs.items():
        if has_rows(name):
            return spec.shape[0]
    return int(checkpoint.config.get("vocab_size", 0))
