"""Tensors streamed to safetensors, in one file or in shards with an index."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from mergesearch.errors import InputError, MergesearchError
from mergesearch.files import whole_file
from mergesearch.merging.digest import Digest
from mergesearch.merging.plan import Buffer, Job, Plan
from mergesearch.parents import HeldTensors
from mergesearch.parents.checkpoint import INDEX, SINGLE
from mergesearch.parents.mapping import DTYPE_NAMES

_Planned = Job | Buffer
_ALIGNMENT = 8


def write_shards(
    plan: Plan,
    tensors: Iterable[tuple[str, Tensor]],
    folder: Path,
    max_shard_bytes: int,
    buffers: Iterable[Tensor] = (),
) -> str:
    """Write a plan's tensors as they come; one of them is in memory at a time.

    Args:
        plan: of the tensors, which come in its order.
        tensors: the stream.
        folder: where the files go; it must exist.
        max_shard_bytes: a shard is closed before it would grow beyond this.
        buffers: the plan's buffers, in its order.

    Returns:
        The hash of all tensors but the buffers, as `merge_into` returns it.

    Raises:
        InputError: the device is full, or the folder cannot be written to.
        MergesearchError: the stream is not what was planned.
    """
    copies = _named(plan, buffers)
    groups = list(_groups((*plan.jobs, *plan.buffers), max_shard_bytes))
    digest, weight_map, stream = Digest(), {}, chain(tensors, copies)
    try:
        for number, group in enumerate(groups, start=1):
            name = SINGLE
            if len(groups) > 1:
                name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            with shard(folder / name, group) as writer:
                # the stream second: a shard must not take the next one's first tensor
                for job, (tensor_name, tensor) in zip(group, stream, strict=False):
                    tensor = tensor.detach().cpu().contiguous()
                    if not isinstance(job, Buffer):
                        digest.add(tensor_name, tensor)
                    writer.write(tensor_name, tensor)
                    weight_map[job.name] = name
        if (extra := next(stream, None)) is not None:
            raise MergesearchError(f"more tensors than planned: {extra[0]} after the last one")
        if len(groups) > 1:
            size = plan.n_bytes + sum(buffer.n_bytes for buffer in plan.buffers)
            index = {"metadata": {"total_size": size}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index, indent=2))
    except OSError as error:
        raise InputError(
            f"the weights must fit the device, but {folder} cannot be written to: "
            f"{error.strerror or error}; make room or name a folder elsewhere"
        ) from None
    return digest.hexdigest()


def hold(
    plan: Plan,
    tensors: Iterable[tuple[str, Tensor]],
    held: HeldTensors,
    buffers: Iterable[Tensor] = (),
) -> str:
    """Take a plan's tensors as they come, in place of files.

    Args:
        plan: of the tensors.
        tensors: the stream.
        held: is given each.
        buffers: the plan's buffers, in its order.

    Returns:
        The hash of all tensors but the buffers, as `write_shards` returns it.
    """
    digest = Digest()
    for name, tensor in tensors:
        digest.add(name, tensor)
        held.add(name, tensor)
    for name, tensor in _named(plan, buffers):
        held.add(name, tensor.clone())
    return digest.hexdigest()


@contextlib.contextmanager
def shard(file: Path, jobs: Sequence[_Planned]) -> Iterator["ShardWriter"]:
    """Write one safetensors file; it has its name when it is whole and on the disk.

    Args:
        file: the file to make.
        jobs: the tensors that it will hold.

    Raises:
        MergesearchError: a tensor is missing at the end.
        OSError: the file cannot be written.
    """
    with whole_file(file) as opened:
        writer = ShardWriter(opened, jobs)
        yield writer
        writer.finish()


class ShardWriter:
    """One safetensors file, laid out before its tensors come and are written.

    Args:
        file: opened for writing.
        jobs: the tensors that it will hold.
    """

    def __init__(self, file: BinaryIO, jobs: Sequence[_Planned]) -> None:
        self._file = file
        self._missing = {job.name: job for job in jobs}
        self._header, self._starts = _layout(jobs)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor, which must be contiguous and on the CPU.

        Raises:
            MergesearchError: the file should not hold such a tensor, or holds it already.
            OSError: it cannot be written.
        """
        job = self._missing.pop(name, None)
        if job is None or (job.shape, job.dtype) != (tuple(tensor.shape), tensor.dtype):
            planned = f"{list(job.shape)} {job.dtype}" if job else "none of this name"
            raise MergesearchError(
                f"a tensor must be as planned, got {name} {list(tensor.shape)} {tensor.dtype}, "
                f"planned {planned}"
            )
        self._file.seek(self._starts[name])
        self._file.write(tensor.flatten().view(torch.uint8).numpy().data)

    def finish(self) -> None:
        """Write the header, when every tensor is there.

        Raises:
            MergesearchError: one is missing.
            OSError: it cannot be written.
        """
        if self._missing:
            raise MergesearchError(
                f"{len(self._missing)} tensors fewer than planned, e.g. {next(iter(self._missing))}"
            )
        self._file.seek(0)
        self._file.write(self._header)


def _named(plan: Plan, buffers: Iterable[Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((buffer.name, tensor) for buffer, tensor in zip(plan.buffers, buffers, strict=True))


def _layout(jobs: Sequence[_Planned]) -> tuple[bytes, dict[str, int]]:
    """Lay out a file: its header, and the offset at which each tensor starts.

    The format is https://github.com/huggingface/safetensors#format.
    The widest dtypes come first, so that every tensor is aligned to its own.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for job in sorted(jobs, key=lambda job: -job.dtype.itemsize):
        offsets[job.name], end = end, end + job.n_bytes
        header[job.name] = {
            "dtype": DTYPE_NAMES[job.dtype],
            "shape": list(job.shape),
            "data_offsets": [offsets[job.name], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    start = 8 + len(text)
    return (
        len(text).to_bytes(8, "little") + text,
        {name: start + offset for name, offset in offsets.items()},
    )


def _groups(jobs: Iterable[_Planned], max_bytes: int) -> Iterator[list[_Planned]]:
    group: list[_Planned] = []
    size = 0
    for job in jobs:
        if group and size + job.n_bytes > max_bytes:
            yield group
            group, size = [], 0
        group.append(job)
        size += job.n_bytes
    yield group
