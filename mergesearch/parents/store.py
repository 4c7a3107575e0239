"""The parents of a study: opened once, read tensor by tensor, kept in memory where they fit."""

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.parents.adapter import Adapter
from mergesearch.parents.alignment import Alignment
from mergesearch.parents.checkpoint import Checkpoint, TensorSpec
from mergesearch.parents.footprint import footprint, largest
from mergesearch.parents.hub import locate
from mergesearch.parents.memo import Memo
from mergesearch.parents.residency import Memory, MemoryPlan, Place, Row, plan_memory
from mergesearch.parents.usage import available_bytes, device_bytes, process_bytes
from mergesearch.parents.vocabulary import Policy
from mergesearch.recipe import ModelPath, ModelRef, Recipe

_CPU = torch.device("cpu")
#: What one merge works in, until it is known which merges there will be: blocks, not tensors.
_WORKING = 64 * 2**20
#: The part of what is available that is used where no budget is given.
_USED = 0.8


class Parents:
    """Every model that a study's recipes may name; checkpoints and adapters are opened once.

    Opening reads headers and adapters. Tensors come into memory as they are read, and stay there
    where their parent is kept; `places` says which are. `reserve` decides it anew once it is known
    what else the process will hold.

    Args:
        models: the models, the base first; the first gives the merged model its configuration
            and tokenizer.
        vocabulary: what to do where the models' vocabularies differ: "error", "base" or "union".
        base: the base of the recipes, if they have one; see `Alignment`.
        device: where tensors are read to.
        names: further names by which recipes may name the models.
        keep: keep models in memory where they fit; one merge reads each tensor once, and does
            better without.
        memory_budget: the bytes of host memory that the whole process may hold at its peak; None
            means what it holds now and 80 % of what is available. On a device with memory of its
            own, 80 % of what is free there may be taken as well.

    Raises:
        InputError: a model cannot be opened, is of another family than the first, or the budget is
            too small even if every model is streamed.
    """

    def __init__(
        self,
        models: Iterable[ModelRef],
        *,
        vocabulary: Policy = "error",
        base: ModelRef | None = None,
        names: Mapping[str, ModelRef] | None = None,
        keep: bool = True,
        device: torch.device = _CPU,
        memory_budget: int | None = None,
    ) -> None:
        self.models = tuple(dict.fromkeys(models))
        self.device = device
        self._own = {ref: ref for ref in self.models}
        self._names = {str(ref): ref for ref in self.models} | dict(names or {})
        self._keep = keep
        self._checkpoints: dict[ModelPath, Checkpoint] = {}
        self._adapters: dict[ModelRef, Adapter] = {}
        for ref in self.models:
            if ref.model not in self._checkpoints:
                self._checkpoints[ref.model] = Checkpoint(locate(ref.model))
            if ref.lora is not None:
                self._adapters[ref] = Adapter(locate(ref.lora), self.checkpoint(ref))
        for ref in self.models[1:]:
            self._check_family(ref)
        opened = {ref: self.checkpoint(ref) for ref in self.models}
        #: How the models' vocabularies are brought to one.
        self.alignment = Alignment(opened, vocabulary, base)
        on_cpu = device.type == "cpu"
        # as many tensors are merged at once as torch has threads, or one where it is the device
        # that is parallel
        self._n_at_once = torch.get_num_threads() if on_cpu else 1
        self._footprints = [
            footprint(
                ref,
                self.checkpoint(ref).specs,
                self._changed(ref),
                moved=not on_cpu,
                n_at_once=self._n_at_once,
            )
            for ref in self.models
        ]
        if memory_budget is None:
            memory_budget = process_bytes() + int(_USED * available_bytes())
        self._budget = memory_budget
        #: What is known of the tensors whatever the candidate, within what the budget leaves.
        self.memo = Memo()
        self._held = Memo()
        self.reserve({"merging": min(self._merging(), self._n_at_once * _WORKING)})

    @classmethod
    def of(cls, recipe: Recipe, **options: Any) -> "Parents":
        """The models of one recipe, in the vocabulary that it means; options as for the class."""
        vocabulary = recipe.tokenizer_source or "error"
        return cls(recipe.models, vocabulary=vocabulary, base=recipe.base_model, **options)

    def checkpoint(self, ref: ModelRef) -> Checkpoint:
        """The full checkpoint under a model, adapter aside.

        Raises:
            InputError: the model is not one of these parents.
        """
        if ref not in self._own:
            known = ", ".join(str(model) for model in self.models)
            raise InputError(f"the recipe names {ref}, which is none of the parents: {known}")
        return self._checkpoints[ref.model]

    def resolve(self, ref: ModelRef) -> ModelRef:
        """The model that a recipe means: by one of the names, or by its path from here.

        Raises:
            InputError: it is none of these parents.
        """
        found = self._own.get(ref) or self._names.get(str(ref))
        if found is None:
            found = ref.resolved(Path())
            self.checkpoint(found)
        return self._own[found]

    def specs(self, ref: ModelRef) -> Mapping[str, TensorSpec]:
        """Shape, in the merged vocabulary, and stored dtype of each of a model's tensors.

        Raises:
            InputError: the model is not one of these parents.
        """
        self.checkpoint(ref)
        return self.alignment.specs(ref)

    def read(self, ref: ModelRef, name: str) -> Tensor:
        """A tensor of a model on `device`: as stored, or float32 where an adapter adds to it.

        W0 + delta is not rounded back to the base's dtype. Rows that belong to tokens are where
        the merged vocabulary has them. The tensor must not be written to, and `release` is to be
        called when it is no longer used. Any number of threads may read.
        """
        return self.alignment.rows(ref, name, self._read)

    def _read(self, ref: ModelRef, name: str) -> Tensor:
        """A tensor in its model's own vocabulary."""
        key = self.key(ref, name)
        place = self._kept.get(key)
        if place is None or (place == "host" and self._keeps_pages(key)):
            return self._moved(ref, name, self.device)
        home = self.device if place == "device" else _CPU
        held = self._held.recall(key, lambda: self._moved(ref, name, home, pin=home == _CPU))
        return held.to(self.device, non_blocking=True)

    def release(self, ref: ModelRef, name: str) -> None:
        """Let go of the memory that a tensor of a streamed model takes; others stay where they are.

        A tensor that was read stays valid as long as somebody holds it.
        """
        key = (ref.model, name)
        if not (self._kept.get(key) == "host" and self._keeps_pages(key)):
            self.checkpoint(ref).release(name)

    @property
    def places(self) -> Mapping[ModelRef, Place]:
        """Where each model is kept, or "mapped" where it is streamed."""
        return dict(zip(self.models, self._plan.places, strict=True))

    def reserve(self, reserved: Mapping[str, int]) -> MemoryPlan:
        """Decide anew which models are kept, next to what else is going to be allocated.

        Call it when nothing is being read: all that was kept or remembered so far is forgotten, and
        what the process holds without it is measured. From then on `places` and the limit of
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
        for checkpoint in self._checkpoints.values():
            checkpoint.release_all()
        self._process = process_bytes()
        self._plan = self.memory_plan(reserved)
        self._kept: dict[Hashable, Place] = {}
        for place in ("host", "device"):  # what is in both is read from the device
            for one, at in zip(self._footprints, self._plan.places, strict=True):
                if at == place:
                    self._kept |= dict.fromkeys(one.kept, at)
        self.memo.forget(self._plan.spare(self._merges_in))
        return self._plan

    def memory_plan(self, reserved: Mapping[str, int]) -> MemoryPlan:
        """What `reserve` would decide, with the process as it was when that was last called.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        budgets: dict[Memory, int] = {"host": self._budget}
        if (free := device_bytes(self.device)) is not None:
            budgets["device"] = int(_USED * free)
        merges = {
            "merging": self._merging(),
            "mapping rows by token": self.alignment.n_bytes,
            **reserved,
        }
        others = [
            Row("this process so far", self._process, "host"),
            Row("reading", max(one.reading for one in self._footprints), "host"),
            *(Row(what, n_bytes, self._merges_in) for what, n_bytes in merges.items()),
        ]
        return plan_memory(self._footprints, others, budgets, keep=self._keep)

    @property
    def folder(self) -> Path:
        """The folder that the merged model's configuration and tokenizer come from."""
        return self.checkpoint(self.models[0]).folder

    @property
    def _merges_in(self) -> Memory:
        return "host" if device_bytes(self.device) is None else "device"

    def _merging(self) -> int:
        """What merges of the largest tensors take, if they are merged whole, in bytes.

        Each takes its inputs in float32 where they are not read so, its result, and once more that
        for the method.
        """
        results = max(
            largest((spec.float_bytes for spec in checkpoint.specs.values()), self._n_at_once)
            for checkpoint in self._checkpoints.values()
        )
        return 2 * results + sum(one.merging for one in self._footprints)

    def _changed(self, ref: ModelRef) -> frozenset[str]:
        return self._adapters[ref].changed if ref in self._adapters else frozenset()

    def key(self, ref: ModelRef, name: str) -> tuple[ModelRef | ModelPath, str]:
        """What a tensor is kept under: models share what no adapter changes."""
        return (ref if name in self._changed(ref) else ref.model, name)

    def _keeps_pages(self, key: tuple[ModelRef | ModelPath, str]) -> bool:
        """Whether the host keeps a tensor as pages of its file, and not as a copy.

        A sum is in no file, and what moves to a CUDA device is faster from pinned memory.
        """
        return isinstance(key[0], ModelPath) and self.device.type != "cuda"

    def _moved(
        self, ref: ModelRef, name: str, device: torch.device, *, pin: bool = False
    ) -> Tensor:
        """A tensor from its file to a device; on another than the CPU, or summed, a copy."""
        stored = self.checkpoint(ref).read(name)
        delta = self._adapters[ref].delta(name) if ref in self._adapters else None
        # on the CPU wherever it goes, for the same bits; the sum is in float32
        tensor = stored if delta is None else stored + delta
        if pin and self.device.type == "cuda":
            tensor = tensor.pin_memory()
        tensor = tensor.to(device)
        if tensor is not stored:
            self.release(ref, name)
        return tensor

    def _check_family(self, ref: ModelRef) -> None:
        """Refuse another architecture or hidden size than the first model's."""
        first, other = self.checkpoint(self.models[0]), self.checkpoint(ref)
        for key in ("model_type", "hidden_size", "n_embd", "d_model"):
            ours, theirs = first.config.get(key), other.config.get(key)
            if ours != theirs:
                raise InputError(
                    f"all models must be of one architecture: {key} is {ours!r} in {first.folder} "
                    f"and {theirs!r} in {other.folder}"
                )
