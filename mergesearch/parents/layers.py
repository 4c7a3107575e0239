"""The layer that a tensor belongs to, by its name."""

import re
from collections.abc import Iterable
from functools import lru_cache

# The first component of a name that is a number: `model.layers.3.mlp.experts.1.weight` is layer 3.
_LAYER = re.compile(r"^(.*?\.)(\d+)(\..*)$")
#: Plans ask for the same names, candidate after candidate.
_N_NAMES = 1 << 16


@lru_cache(_N_NAMES)
def layer_of(name: str) -> int | None:
    """Find the layer index in a tensor's name; None outside the layers."""
    match = _LAYER.match(name)
    return int(match.group(2)) if match else None


def tower_of(name: str) -> str:
    """Give what stands before the layer index: an encoder's layers, or a decoder's."""
    match = _LAYER.match(name)
    return match.group(1) if match else ""


def tower_depths(names: Iterable[str]) -> dict[str, int]:
    """Count the layers of each tower, by the highest index."""
    depths: dict[str, int] = {}
    for name in names:
        if (layer := layer_of(name)) is not None:
            tower = tower_of(name)
            depths[tower] = max(depths.get(tower, 0), layer + 1)
    return depths


@lru_cache(_N_NAMES)
def in_layer(name: str, layer: int) -> str:
    """Name the same tensor of another layer."""
    return _LAYER.sub(rf"\g<1>{layer}\g<3>", name)
