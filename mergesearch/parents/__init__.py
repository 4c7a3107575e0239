"""Opening checkpoints and adapters: names, shapes, dtypes, layers; tensors read on demand."""

from mergesearch.parents.alignment import Alignment
from mergesearch.parents.checkpoint import Checkpoint, TensorSpec, read_json
from mergesearch.parents.devices import choose_device, merges_on
from mergesearch.parents.layers import in_layer, layer_of
from mergesearch.parents.memo import Memo
from mergesearch.parents.opening import open_parents
from mergesearch.parents.residency import MemoryPlan, Place
from mergesearch.parents.store import Parents
from mergesearch.parents.vocabulary import Policy

__all__ = [
    "Alignment",
    "Checkpoint",
    "Memo",
    "MemoryPlan",
    "Parents",
    "Place",
    "Policy",
    "TensorSpec",
    "choose_device",
    "in_layer",
    "layer_of",
    "merges_on",
    "open_parents",
    "read_json",
]
