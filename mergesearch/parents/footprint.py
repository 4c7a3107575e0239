"""The bytes that a parent takes, kept or streamed, and that a merge of it takes."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

import torch

from mergesearch.parents.checkpoint import TensorSpec
from mergesearch.recipe import ModelRef


@dataclass(frozen=True)
class Footprint:
    """The bytes that one parent takes; but for `kept`, of the tensors merged at once."""

    #: Its name in the table.
    name: str
    #: Each tensor that it holds when it is kept; what has the same key is shared and held once.
    kept: Mapping[Hashable, int]
    #: From reading to release, in host memory, while the parent is streamed.
    streamed: int
    #: More than that while it is being read, in host memory.
    reading: int = 0
    #: What a merge makes of it where it runs: in float32, and on the device.
    merging: int = 0


def footprint(
    ref: ModelRef,
    specs: Mapping[str, TensorSpec],
    changed: Mapping[str, int],
    *,
    moved: bool,
    n_at_once: int,
) -> Footprint:
    """Bound the footprint of a parent.

    Args:
        ref: the parent; its own tensors have keys (ref, name), its checkpoint's (ref.model, name).
        specs: the tensors of its checkpoint.
        changed: the float32 tensors that computing takes beside the result, of each tensor that an
            adapter changes.
        moved: whether what is read moves on, to a device that is not the CPU.
        n_at_once: how many tensors are merged at a time.
    """
    same = {name: spec for name, spec in specs.items() if name not in changed}
    sums = {name: specs[name] for name in changed}
    kept: dict[Hashable, int] = {(ref.model, name): spec.n_bytes for name, spec in same.items()}
    kept |= {(ref, name): spec.float_bytes for name, spec in sums.items()}
    # a sum takes the stored tensor, the delta and itself; the first two for a moment
    reading = [
        spec.n_bytes + (changed[name] + moved) * spec.float_bytes for name, spec in sums.items()
    ]
    reading += [moved * spec.n_bytes for spec in same.values()]
    merging = [moved * spec.float_bytes for spec in sums.values()]
    merging += [moved * spec.n_bytes + _float_copy(spec) for spec in same.values()]
    return Footprint(
        name=short_name(ref),
        kept=kept,
        streamed=0 if moved else largest(kept.values(), n_at_once),
        reading=largest(reading, n_at_once),
        merging=largest(merging, n_at_once),
    )


def short_name(ref: ModelRef) -> str:
    """Name a model in as few letters as do from here."""
    return str(min(ref, ref.relative(Path.cwd()), key=lambda ref: len(str(ref))))


def largest(sizes: Iterable[int], n: int) -> int:
    """Sum the n largest sizes."""
    return sum(nlargest(n, sizes))


def _float_copy(spec: TensorSpec) -> int:
    return 0 if spec.dtype == torch.float32 else spec.float_bytes
