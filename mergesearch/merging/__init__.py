"""The merge kernel: recipe and parents to tensors, streamed to a live model or to shards."""

from mergesearch.merging.digest import Digest
from mergesearch.merging.kernel import merge_tensor, merged_tensors, run
from mergesearch.merging.live import LiveModel, build
from mergesearch.merging.plan import Input, Job, Plan, n_layers, plan
from mergesearch.merging.shards import write_shards

__all__ = [
    "Digest",
    "Input",
    "Job",
    "LiveModel",
    "Plan",
    "build",
    "merge_tensor",
    "merged_tensors",
    "n_layers",
    "plan",
    "run",
    "write_shards",
]
