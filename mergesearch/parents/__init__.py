"""Opening checkpoints and adapters: names, shapes, dtypes, layers; tensors read on demand."""

from mergesearch.parents.checkpoint import Checkpoint, TensorSpec, read_json
from mergesearch.parents.layers import in_layer, layer_of
from mergesearch.parents.store import Parents

__all__ = ["Checkpoint", "Parents", "TensorSpec", "in_layer", "layer_of", "read_json"]
