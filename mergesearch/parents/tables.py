"""Tensors with one row a token: embeddings, output heads and their biases."""

from mergesearch.parents.checkpoint import EMBEDDINGS, Checkpoint

#: The last parts of the names of tensors that have one row a token.
TABLES = (*EMBEDDINGS, "lm_head.weight", "lm_head.bias", "embed_out.weight")


def has_rows(name: str) -> bool:
    """Check whether a tensor has one row a token."""
    return any(name == known or name.endswith(f".{known}") for known in TABLES)


def n_rows(checkpoint: Checkpoint) -> int:
    """Count the rows of a model's embedding."""
    for name, spec in checkpoint.specs.items():
        if has_rows(name):
            return spec.shape[0]
    return int(checkpoint.config.get("vocab_size", 0))
