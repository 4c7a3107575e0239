"""The settings that a merged model generates with: its first model's."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mergesearch.merging.plan import Plan
from mergesearch.parents import Checkpoint, Parents

if TYPE_CHECKING:
    from transformers import GenerationConfig


def generation_config(plan: Plan) -> "GenerationConfig":
    """Make the settings that transformers reads with a checkpoint of a plan."""
    return _settings(plan.config, plan.generation)


def generation_mark(plan: Plan, parents: Parents) -> str:
    """Mark a candidate that generates otherwise than the first of the parents.

    Two candidates of the same tensors may begin with different models, and answer differently.

    Returns:
        "", or "+" and a hash of the settings, to stand behind the hash of the tensors.
    """
    first = parents.checkpoint(parents.models[0])
    own = _settings(plan.config, plan.generation)
    usual = parents.memo.recall(
        ("generation", first.folder), lambda: _settings(first.config, first.generation_config)
    )
    if own == usual:
        return ""
    text = own.to_json_string(ignore_metadata=True)
    return f"+{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def generation_hash(checkpoint: Checkpoint) -> str:
    """Hash a `generation_config.json`, but for who wrote it; "" where there is none."""
    if checkpoint.generation_config is None:
        return ""
    settings = {
        key: value
        for key, value in checkpoint.generation_config.items()
        if key not in ("_from_model_config", "transformers_version")
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _settings(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None
) -> "GenerationConfig":
    """Read a `generation_config.json`, or in its place an old `config.json`."""
    from transformers import GenerationConfig

    if generation is None:
        return GenerationConfig.from_model_config(copy.deepcopy(dict(config)))
    return GenerationConfig.from_dict(copy.deepcopy(dict(generation)))
