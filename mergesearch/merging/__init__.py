"""The merge kernel: recipe and parents to a live model, or to streamed shards."""

from mergesearch.merging.configuration import language_depth, n_layers
from mergesearch.merging.digest import Digest
from mergesearch.merging.generation import generation_hash
from mergesearch.merging.gradient import Gradients, LearnableModel, Routes, total_rank
from mergesearch.merging.kernel import digest_of, merged_tensors, run
from mergesearch.merging.live import LiveModel, fill, merge_into
from mergesearch.merging.loadable import check_loads
from mergesearch.merging.memory import merging_bytes
from mergesearch.merging.norms import task_vector_norms
from mergesearch.merging.plan import Buffer, Input, Job, Plan
from mergesearch.merging.planning import plan_merge
from mergesearch.merging.shards import hold, write_shards
from mergesearch.merging.skeleton import (
    build,
    compute_dtype,
    conversion_of,
    model_config,
    skeleton,
)
from mergesearch.merging.spread import Spread
from mergesearch.merging.stack import Stacks, own_bytes, reserve_stacks

__all__ = [
    "Buffer",
    "Digest",
    "Gradients",
    "Input",
    "Job",
    "LearnableModel",
    "LiveModel",
    "Plan",
    "Routes",
    "Spread",
    "Stacks",
    "build",
    "check_loads",
    "compute_dtype",
    "conversion_of",
    "digest_of",
    "fill",
    "generation_hash",
    "hold",
    "language_depth",
    "merge_into",
    "merged_tensors",
    "merging_bytes",
    "model_config",
    "n_layers",
    "own_bytes",
    "plan_merge",
    "reserve_stacks",
    "run",
    "skeleton",
    "task_vector_norms",
    "total_rank",
    "write_shards",
]
