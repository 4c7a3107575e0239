"""Layers by which a model predicts further tokens than the next."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mergesearch.parents.layers import layer_of

#: What configurations call their number.
_COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
#: A part of their tensors' names, where they do not lie behind the model's own layers.
_NAMED = re.compile(r"(^|\.)(mtp|nextn)(_\w+)?\.")


def further_layers(config: Mapping[str, Any]) -> range:
    """List the indices of such layers, behind a model's own, by its configuration."""
    for part in (config, *(of for of in config.values() if isinstance(of, dict))):
        depth = part.get("num_hidden_layers")
        for n in (part.get(key) for key in _COUNTS):
            if type(depth) is int and type(n) is int and n:
                return range(depth, depth + n)
    return range(0)


def is_further(name: str, layers: range) -> bool:
    """Tell a tensor of such layers, behind the others or under a name of their own."""
    return layer_of(name) in layers or bool(layers and _NAMED.search(name))


def passed_over(model: Any, names: Iterable[str]) -> frozenset[str]:
    """Find the tensors that a model's class leaves in the file, as it says itself.

    Of layers of further tokens it knows by number only those of published models; the configuration
    counts them.

    Args:
        model: a transformers model, or another module, which says nothing.
        names: of tensors, as stored.
    """
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    layers = further_layers(model.config.to_dict()) if hasattr(model, "config") else range(0)
    return frozenset(
        name
        for name in names
        if is_further(name, layers) or any(re.search(pattern, name) for pattern in patterns)
    )


def without_further(config: Mapping[str, Any]) -> dict[str, Any]:
    """Say in all parts of a configuration that there are none."""
    parts = {key: without_further(of) for key, of in config.items() if isinstance(of, dict)}
    return {**config, **parts, **{key: 0 for key in _COUNTS if config.get(key)}}
