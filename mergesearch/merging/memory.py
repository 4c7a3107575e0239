"""The memory of a merge, beside the parents and the model that it writes."""

from collections.abc import Iterable

import torch

from mergesearch.merging.fuse import call_for
from mergesearch.merging.kernel import block_entries
from mergesearch.merging.plan import Job, Plan
from mergesearch.methods.formula import plain
from mergesearch.parents import Parents

#: Float32 temporaries of a block, inputs aside.
_TEMPORARIES = 16


def merging_bytes(plan: Plan, parents: Parents, *, streamed: bool) -> int:
    """Bound the memory of a plan's merges, those under way at once together.

    Args:
        plan: what is merged.
        parents: where its inputs are read.
        streamed: results are handed on tensor by tensor, and not written into a live model.
    """
    at_once = torch.get_num_threads() if parents.device.type == "cpu" else 1
    compiled = not streamed and call_for(parents.device, plan.n_entries) is not plain
    entries = block_entries(parents.device, compiled=compiled)
    blocks = max(_block_bytes(job, entries) for job in plan.jobs)
    whole = max(_whole_bytes(job) for job in plan.jobs)
    # what is waiting for its turn, and what was handed out
    results = _largest((job.n_bytes for job in plan.jobs), at_once + 1) if streamed else 0
    return at_once * (blocks + whole) + results


def _block_bytes(job: Job, entries: int) -> int:
    n_inputs = len(job.inputs)
    return 4 * min(entries, job.n_entries) * (2 * n_inputs + _TEMPORARIES)


def _whole_bytes(job: Job) -> int:
    """Bound what a formula takes that looks at a whole tensor in float32."""
    copies = job.method.copies(job.name, len(job.shape), len(job.models))
    return 4 * job.n_entries * copies


def _largest(sizes: Iterable[int], n: int) -> int:
    return sum(sorted(sizes)[-n:])
