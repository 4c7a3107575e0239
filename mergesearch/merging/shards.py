"""Writing a stream of tensors as safetensors, in one file or in shards with an index."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.merging.digest import Digest
from mergesearch.merging.plan import Job, Plan
from mergesearch.parents.checkpoint import INDEX


def write_shards(
    work: Plan, tensors: Iterable[tuple[str, Tensor]], folder: Path, max_shard_bytes: int
) -> str:
    """Write a plan's tensors; at most one shard is in memory at a time.

    Args:
        work: the plan that the tensors come from, in its order.
        tensors: the stream.
        folder: where the files go; it must exist.
        max_shard_bytes: a shard is closed before it would grow beyond this.

    Returns:
        The hash of all tensors, as `LiveModel.write` returns it.

    Raises:
        InputError: the device is full.
    """
    groups = list(_groups(work.jobs, max_shard_bytes))
    digest, weight_map, stream = Digest(), {}, iter(tensors)
    for number, group in enumerate(groups, start=1):
        file = "model.safetensors"
        if len(groups) > 1:
            file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        shard = {}
        for _, (name, tensor) in zip(group, stream, strict=False):
            digest.add(name, tensor)
            shard[name] = tensor.contiguous()
            weight_map[name] = file
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot write {folder / file}: {error}") from None
    if len(groups) > 1:
        index = {"metadata": {"total_size": work.n_bytes}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2))
    return digest.hexdigest()


def _groups(jobs: Iterable[Job], max_bytes: int) -> Iterator[list[Job]]:
    group: list[Job] = []
    size = 0
    for job in jobs:
        if group and size + job.n_bytes > max_bytes:
            yield group
            group, size = [], 0
        group.append(job)
        size += job.n_bytes
    yield group
