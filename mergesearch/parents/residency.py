"""The residency of models: kept in memory or streamed, under a budget."""

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor

from mergesearch.parents.footprint import footprint, largest
from mergesearch.parents.memo import Memo
from mergesearch.parents.memory import Memory, MemoryPlan, MemoryRow, Residence, plan_memory
from mergesearch.parents.reading import ModelFiles, TensorKey
from mergesearch.parents.usage import available_bytes, device_bytes, process_bytes
from mergesearch.recipe import ModelPath, ModelRef

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
        device: where tensors are read to.
        keep: keep models where they fit; else all are streamed.
        memory_budget: the bytes of host memory that the whole process may hold at its peak; None
            means what it holds now and 80 % of what is available. On a device with memory of its
            own, 80 % of what is free there may be taken as well.
        mapping_bytes: what one tensor takes while its rows are mapped by token.

    Raises:
        InputError: the budget is too small even if every model is streamed.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: torch.device,
        keep: bool = True,
        memory_budget: int | None = None,
        mapping_bytes: int = 0,
    ) -> None:
        self.device = device
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
                {name: change.n_copies for name, change in files.changes(ref).items()},
                moved=not on_cpu,
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
        """Read a tensor to `device`, from memory where its model is kept.

        It must not be written to.
        """
        key = self._files.key(ref, name)
        residence = self._kept.get(key)
        if residence is None or (residence == "host" and self._keeps_pages(key)):
            return self._moved(ref, name, self.device)
        home = self.device if residence == "device" else _CPU
        held = self._held.recall(key, lambda: self._moved(ref, name, home, pin=home == _CPU))
        return held.to(self.device, non_blocking=True)

    def release(self, ref: ModelRef, name: str) -> None:
        """Let go of the memory that a tensor of a streamed model takes; others stay.

        A tensor that was read stays valid as long as somebody holds it.
        """
        key = (ref.model, name)
        if not (self._kept.get(key) == "host" and self._keeps_pages(key)):
            self._files.release(ref, name)

    def reserve(self, reserved: Mapping[str, int]) -> MemoryPlan:
        """Decide anew which models are kept, next to what else is going to be allocated.

        Call it when nothing is being read: all that was kept or remembered so far is forgotten, and
        what the process holds without it is measured. From then on `residences` and the limit of
        `memo` are those of the plan.

        Args:
            reserved: bytes by what they are for, e.g. "live model"; only what is not yet held.
                They are taken where merges run, on `device`. "merging" stands for what a merge
                itself takes, which is otherwise counted as if tensors were merged whole.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        self._held.forget(None)
        self.memo.forget(0)
        self._files.release_all()
        self._process = process_bytes()
        self._plan = self.memory_plan(reserved)
        self._kept: dict[Hashable, Residence] = {}
        for memory in ("host", "device"):  # what is in both is read from the device
            for one, residence in zip(self._footprints, self._plan.residences, strict=True):
                if residence == memory:
                    self._kept |= dict.fromkeys(one.kept, residence)
        self.memo.forget(self._plan.spare(self._merges_in))
        return self._plan

    def memory_plan(self, reserved: Mapping[str, int]) -> MemoryPlan:
        """Say what `reserve` would decide, with the process as it was at its last call.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        budgets: dict[Memory, int] = {"host": self._budget}
        if (free := device_bytes(self.device)) is not None:
            budgets["device"] = int(_USED * free)
        merges = {
            "merging": self._merging(),
            "mapping rows by token": self._mapping_bytes,
            **reserved,
        }
        others = [
            MemoryRow("this process so far", self._process, "host"),
            MemoryRow("reading", max(one.reading for one in self._footprints), "host"),
            *(MemoryRow(what, n_bytes, self._merges_in) for what, n_bytes in merges.items()),
        ]
        return plan_memory(self._footprints, others, budgets, keep=self.keep)

    @property
    def _merges_in(self) -> Memory:
        return "host" if device_bytes(self.device) is None else "device"

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
        if tensor is not read or name in self._files.changes(ref):
            self.release(ref, name)
        return tensor
