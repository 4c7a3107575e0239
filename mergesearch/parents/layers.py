"""The layer that a tensor belongs to, by its name."""

import re

# The first component of a name that is a number: `model.layers.3.mlp.experts.1.weight` is layer 3.
_LAYER = re.compile(r"^(.*?\.)(\d+)(\..*)$")


def layer_of(name: str) -> int | None:
    """Find the layer index in a tensor's name; None outside the layers."""
    match = _LAYER.match(name)
    return int(match.group(2)) if match else None


def in_layer(name: str, layer: int) -> str:
    """Name the same tensor of another layer."""
    return _LAYER.sub(rf"\g<1>{layer}\g<3>", name)
