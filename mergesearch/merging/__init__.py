"""The merge kernel: recipe and parents to tensors, streamed to a live model or to shards."""

from mergesearch.merging.digest import Digest
from mergesearch.merging.kernel import merged_tensors, run
from mergesearch.merging.live import build, compute_dtype, fill, merge_into, model_config, skeleton
from mergesearch.merging.memory import merging_bytes
from mergesearch.merging.plan import Input, Job, Plan, n_layers, plan
from mergesearch.merging.shards import write_shards
from mergesearch.merging.stack import Stacks, own_bytes, reserve_stacks

__all__ = [
    "Digest",
    "Input",
    "Job",
    "Plan",
    "Stacks",
    "build",
    "compute_dtype",
    "fill",
    "merge_into",
    "merged_tensors",
    "merging_bytes",
    "model_config",
    "n_layers",
    "own_bytes",
    "plan",
    "reserve_stacks",
    "run",
    "skeleton",
    "write_shards",
]
