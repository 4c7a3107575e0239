"""The memory of a merge, beside the parents and the model that it writes."""

from collections.abc import Iterable

import torch

from mergesearch.merging.fuse import call_for
from mergesearch.merging.kernel import block_entries, is_transposed
from mergesearch.merging.plan import Input, Job, Plan
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
    entries = block_entries(parents, compiled=compiled)
    blocks = max(_block_bytes(job, entries) + _moved_bytes(job, parents) for job in plan.jobs)
    whole = max(_whole_bytes(job, parents) for job in plan.jobs)
    # what is waiting for its turn, and what was handed out
    results = _largest((job.n_bytes for job in plan.jobs), at_once + 1) if streamed else 0
    return at_once * (blocks + whole) + results


def _block_bytes(job: Job, entries: int) -> int:
    n_inputs = len(job.inputs)
    return 4 * min(entries, job.n_entries) * (2 * n_inputs + _TEMPORARIES)


def _moved_bytes(job: Job, parents: Parents) -> int:
    """Bound what inputs take that are brought to the device as wholes."""
    if parents.device.type == "cpu" or len(parents.devices) > 1:
        return 0
    return sum(
        job.n_entries * (4 if parents.key(i.model, i.name)[0] == i.model else _itemsize(i, parents))
        for i in job.inputs
    )


def _itemsize(source: Input, parents: Parents) -> int:
    return parents.specs(source.model)[source.name].dtype.itemsize


def _whole_bytes(job: Job, parents: Parents) -> int:
    """Bound what a formula takes that looks at a whole tensor in float32."""
    about = job.name, len(job.shape), len(job.models)
    squares = job.method.n_squares(*about)
    columns = 0
    if squares:
        columns = job.shape[0 if is_transposed(job, parents) else -1]
    return 4 * (job.n_entries * job.method.copies(*about) + columns**2 * squares)


def _largest(sizes: Iterable[int], n: int) -> int:
    return sum(sorted(sizes)[-n:])
