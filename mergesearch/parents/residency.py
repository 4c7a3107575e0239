"""The residency of models: kept in memory or streamed, under a budget."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from mergesearch.parents.footprint import footprint, largest
from mergesearch.parents.memo import Memo
from mergesearch.parents.memory import Memory, MemoryPlan, MemoryRow, Residence, plan_memory
from mergesearch.parents.reading import ModelFiles, TensorKey
from mergesearch.parents.usage import (
    available_bytes,
    device_bytes,
    process_bytes,
    return_freed_blocks,
)
from mergesearch.recipe import ModelPath, ModelRef

#: Bytes by what they are for; of a model over several devices perhaps one number for each.
Reserved = Mapping[str, int | Sequence[int]]

_CPU = torch.device("cpu")
#: What one merge works in, until it is known which merges there will be: blocks, not tensors.
_WORKING = 64 * 2**20
#: The part of what is available that is used where no budget is given.
_USED = 0.8


def default_budget(n_sharing: int = 1) -> int:
    """Return the bytes that a process may hold at its peak where nobody says.

    Args:
        n_sharing: processes that share what is available.
    """
    return process_bytes() + int(_USED * available_bytes() / n_sharing)


class Residency:
    """Decides which models are kept in memory, keeps them, and streams the others.

    Tensors come into memory as they are read, and stay there where their model is kept;
    `residences` says which are. `reserve` decides it anew once it is known what else the process
    will hold. Any number of threads may read.

    Args:
        files: the models, the base first.
        device: where tensors are merged, and read to.
        others: further devices over which the merged model is spread: then tensors are read to
            host memory, whence blocks of them are brought to where each is merged.
        keep: keep models where they fit; else all are streamed.
        memory_budget: the bytes of host memory that the whole process may hold at its peak; None
            means what it holds now and 80 % of what is available. On a device with memory of its
            own, 80 % of what is free there may be taken as well.
        device_memory: bytes of each such device that may be taken instead.
        mapping_bytes: what one tensor takes while its rows are mapped by token.

    Raises:
        InputError: the budget is too small even if every model is streamed.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: torch.device,
        others: Sequence[torch.device] = (),
        keep: bool = True,
        memory_budget: int | None = None,
        device_memory: int | None = None,
        mapping_bytes: int = 0,
    ) -> None:
        self.device = device
        #: All that the merged model lies on.
        self.devices = (device, *others)
        self._reads_to = _CPU if others else device
        self._device_memory = device_memory
        self.keep = keep
        self._files = files
        self._mapping_bytes = mapping_bytes
        on_cpu = device.type == "cpu"
        # as many tensors are merged at once as torch has threads, or one where it is the device
        # that is parallel
        self._n_at_once = torch.get_num_threads() if on_cpu else 1
        self._footprints = [
            footprint(
                ref,
                files.checkpoint(ref).specs,
                files.copies(ref),
                moved=self._reads_to.type != "cpu",
                n_at_once=self._n_at_once,
            )
            for ref in files.models
        ]
        if memory_budget is None:
            memory_budget = default_budget()
        self._budget = memory_budget
        #: Facts of the tensors that hold for all candidates, as the budget allows.
        self.memo = Memo()
        self._held = Memo()
        self.reserve({"merging": min(self._merging(), self._n_at_once * _WORKING)})

    @property
    def residences(self) -> Mapping[ModelRef, Residence]:
        """The memory that each model is kept in; "mapped" if it is streamed."""
        return dict(zip(self._files.models, self._plan.residences, strict=True))

    def read(self, ref: ModelRef, name: str) -> Tensor:
        """Read a tensor, from memory where its model is kept.

        It must not be written to.
        """
        key = self._files.key(ref, name)
        residence = self._kept.get(key)
        if residence is None or (residence == "host" and self._keeps_pages(key)):
            return self._moved(ref, name, self._reads_to)
        home = self._reads_to if residence == "device" else _CPU
        held = self._held.recall(key, lambda: self._moved(ref, name, home, pin=home == _CPU))
        return held.to(self._reads_to, non_blocking=True)

    def release(self, ref: ModelRef, name: str) -> None:
        """Let go of the memory that a tensor of a streamed model takes; others stay.

        A tensor that was read stays valid as long as somebody holds it.
        """
        key = (ref.model, name)
        if not (self._kept.get(key) == "host" and self._keeps_pages(key)):
            self._files.release(ref, name)

    def reserve(self, reserved: Reserved) -> MemoryPlan:
        """Decide anew which models are kept, next to what else is going to be allocated.

        Call it when nothing is being read: all that was kept or remembered so far is forgotten, and
        what the process holds without it is measured. From then on `residences` and the limit of
        `memo` are those of the plan.

        Args:
            reserved: bytes by what they are for, e.g. "live model"; only what is not yet held.
                They are taken where merges run, on each of `devices`. "merging" stands for what a
                merge itself takes, which is otherwise counted as if tensors were merged whole.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        self._held.forget(None)
        self.memo.forget(0)
        self._files.release_all()
        return_freed_blocks()  # or what is in use is not what the process holds
        self._process = process_bytes()
        self._plan = self.memory_plan(reserved)
        self._kept: dict[Hashable, Residence] = {}
        for memory in ("host", "device"):  # what is in both is read from the device
            for one, residence in zip(self._footprints, self._plan.residences, strict=True):
                if residence == memory:
                    self._kept |= dict.fromkeys(one.kept, residence)
        self.memo.forget(min(self._plan.spare(memory) for memory in self._merges_in))
        return self._plan

    def memory_plan(self, reserved: Reserved) -> MemoryPlan:
        """Say what `reserve` would decide, with the process as it was at its last call.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        budgets: dict[Memory, int] = {"host": self._budget, **self._device_budgets()}
        merges: dict[str, int | Sequence[int]] = {
            "merging": self._merging(),
            "mapping rows by token": self._mapping_bytes,
            **reserved,
        }
        others = [
            MemoryRow("this process so far", self._process, "host"),
            MemoryRow("reading", max(one.reading for one in self._footprints), "host"),
            *(row for what, taken in merges.items() for row in self._rows(what, taken)),
        ]
        return plan_memory(self._footprints, others, budgets, keep=self.keep)

    def _rows(self, what: str, taken: int | Sequence[int]) -> list[MemoryRow]:
        """List what is taken where merges run."""
        memories = self._merges_in
        sizes = [taken] * len(memories) if isinstance(taken, int) else taken
        return [MemoryRow(what, n, memory) for n, memory in zip(sizes, memories, strict=True)]

    @property
    def _merges_in(self) -> tuple[Memory, ...]:
        return tuple(self._device_budgets()) or ("host",)

    def _device_budgets(self) -> dict[Memory, int]:
        """Count what may be taken of devices that have memory of their own."""
        if len(self.devices) == 1:
            named = {"device": self.device}
        else:
            named = {str(device): device for device in self.devices}
        budgets = {name: self._device_budget(device) for name, device in named.items()}
        return {name: n_bytes for name, n_bytes in budgets.items() if n_bytes is not None}

    def _device_budget(self, device: torch.device) -> int | None:
        if self._device_memory is not None and device.type != "cpu":
            return self._device_memory
        free = device_bytes(device)
        return None if free is None else int(_USED * free)

    def _merging(self) -> int:
        """Bound the bytes of merges of the largest tensors, if they are merged whole.

        Each takes its inputs in float32 where they are not read so, its result, and once more that
        for the method.
        """
        results = max(
            largest((spec.float_bytes for spec in checkpoint.specs.values()), self._n_at_once)
            for checkpoint in self._files.checkpoints
        )
        return 2 * results + sum(one.merging for one in self._footprints)

    def _keeps_pages(self, key: TensorKey) -> bool:
        """Check whether the host keeps a tensor as pages of its file, and not as a copy.

        A sum is in no file, and what moves to a CUDA device is faster from pinned memory.
        """
        return isinstance(key[0], ModelPath) and self.device.type != "cuda"

    def _moved(
        self, ref: ModelRef, name: str, device: torch.device, *, pin: bool = False
    ) -> Tensor:
        """Read a tensor from its file to a device; summed or off the CPU, it is a copy."""
        read = self._files.read(ref, name)
        tensor = read.pin_memory() if pin and self.device.type == "cuda" else read
        tensor = tensor.to(device)
        if tensor is not read or name in self._files.copies(ref):
            self.release(ref, name)
        return tensor
