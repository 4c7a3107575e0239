"""Parents: models opened once, whose tensors are read on demand or kept."""

from mergesearch.parents.alignment import Alignment
from mergesearch.parents.architecture import (
    configuration,
    destinations,
    empty_model,
    untied,
)
from mergesearch.parents.checkpoint import EMBEDDINGS, HEAD, Checkpoint, TensorSpec, read_json
from mergesearch.parents.differences import Difference
from mergesearch.parents.further import (
    further_layers,
    is_further,
    passed_over,
    without_further,
)
from mergesearch.parents.fused import Group, groups
from mergesearch.parents.held import HeldTensors
from mergesearch.parents.hub import locate
from mergesearch.parents.layers import in_layer, layer_of, tower_depths, tower_of
from mergesearch.parents.memo import Memo
from mergesearch.parents.memory import MemoryPlan, Residence
from mergesearch.parents.opening import open_parents
from mergesearch.parents.parents import Parents
from mergesearch.parents.residency import Reserved, default_budget
from mergesearch.parents.statistics import NoStatistics, Statistics
from mergesearch.parents.strangers import is_computed
from mergesearch.parents.tables import LANGUAGE_KEYS
from mergesearch.parents.tokenizer import load_tokenizer, tokenizer_of
from mergesearch.parents.vocabulary import Policy

__all__ = [
    "EMBEDDINGS",
    "HEAD",
    "LANGUAGE_KEYS",
    "Alignment",
    "Checkpoint",
    "Difference",
    "Group",
    "HeldTensors",
    "Memo",
    "MemoryPlan",
    "NoStatistics",
    "Parents",
    "Policy",
    "Reserved",
    "Residence",
    "Statistics",
    "TensorSpec",
    "configuration",
    "default_budget",
    "destinations",
    "empty_model",
    "further_layers",
    "groups",
    "in_layer",
    "is_computed",
    "is_further",
    "layer_of",
    "load_tokenizer",
    "locate",
    "open_parents",
    "passed_over",
    "read_json",
    "tokenizer_of",
    "tower_depths",
    "tower_of",
    "untied",
    "without_further",
]
