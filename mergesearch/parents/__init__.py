"""Opening checkpoints and adapters: names, shapes, dtypes, layers; tensors read on demand."""

from mergesearch.parents.alignment import Alignment
from mergesearch.parents.checkpoint import Checkpoint, TensorSpec, read_json
from mergesearch.parents.layers import in_layer, layer_of
from mergesearch.parents.memo import Memo
from mergesearch.parents.opening import open_parents
from mergesearch.parents.residency import MemoryPlan, Place
from mergesearch.parents.store import Parents
from mergesearch.parents.tokenizer import load_tokenizer, tokenizer_of
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
    "in_layer",
    "layer_of",
    "load_tokenizer",
    "open_parents",
    "read_json",
    "tokenizer_of",
]
