"""The parents of a study: in one vocabulary, and in memory where they fit."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mergesearch.parents.alignment import Alignment
from mergesearch.parents.architecture import transposed_weights
from mergesearch.parents.checkpoint import Checkpoint, TensorSpec
from mergesearch.parents.differences import (
    Difference,
    differences_beside,
    differences_of_function,
    refuse,
)
from mergesearch.parents.held import HeldTensors
from mergesearch.parents.memo import Memo
from mergesearch.parents.memory import MemoryPlan, Residence
from mergesearch.parents.reading import ModelFiles, TensorKey
from mergesearch.parents.residency import Reserved, Residency
from mergesearch.parents.statistics import NoStatistics, Statistics
from mergesearch.parents.strangers import refuse_strangers
from mergesearch.parents.vocabulary import Policy
from mergesearch.recipe import ModelPath, ModelRef, Recipe, TokenizerBlock

_CPU = torch.device("cpu")


class Parents:
    """Every model that a study's recipes may name, opened once.

    Opening reads headers and adapters. Tensors come into memory as they are read, and stay there
    where their parent is kept; `residences` says which are. `reserve` decides it anew once it is
    known what else the process will hold.

    >>> from pathlib import Path
    >>> from mergesearch import Parents, read_recipe
    >>> recipe = read_recipe("{merge_method: passthrough, models: [{model: models/one}]}")
    >>> parents = Parents.of(recipe.resolved(Path()))
    >>> parents.read(parents.models[0], "model.norm.weight").shape
    torch.Size([16])
    >>> list(parents.residences.values())
    ['host']

    Args:
        models: the models, the base first; the first gives the merged model its configuration
            and tokenizer.
        vocabulary: what to do where the models' vocabularies differ: "error", "base", "union", the
            model whose it is, or what a recipe says of its tokenizer.
        base: the base of the recipes, if they have one; see `Alignment`.
        device: where tensors are merged, and read to.
        others: further devices over which the merged model is spread; see `Residency`.
        names: further names by which recipes may name the models.
        keep: keep models in memory where they fit; one merge reads each tensor once, and does
            better without.
        memory_budget: the bytes of host memory that the whole process may hold at its peak; see
            `Residency`.
        device_memory: bytes of each device that may be taken.
        weights: open the weights' files; without them only plans are made, see `ModelFiles`.
        allow_mismatch: merge models whose weights are of different functions, as with another
            number of heads, although a merge of them means nothing; and leave out tensors of some
            that nothing explains.
        held: tensors of models that are in memory, and not in their folders.

    Raises:
        InputError: a model cannot be opened, is of another family than the first or of another
            function, or the budget is too small even if every model is streamed.
    """

    def __init__(
        self,
        models: Iterable[ModelRef],
        *,
        vocabulary: Policy | ModelRef | TokenizerBlock = "error",
        base: ModelRef | None = None,
        names: Mapping[str, ModelRef] | None = None,
        keep: bool = True,
        device: torch.device = _CPU,
        others: Sequence[torch.device] = (),
        memory_budget: int | None = None,
        device_memory: int | None = None,
        weights: bool = True,
        allow_mismatch: bool = False,
        held: Mapping[ModelPath, HeldTensors] | None = None,
    ) -> None:
        self.models = tuple(dict.fromkeys(models))
        self._own = {ref: ref for ref in self.models}
        self._names = {str(ref): ref for ref in self.models} | dict(names or {})
        self._files = ModelFiles(self.models, held, weights=weights)
        self._checkpoints = checkpoints = {ref: self.checkpoint(ref) for ref in self.models}
        self._folders = {ref.model: checkpoint for ref, checkpoint in checkpoints.items()}
        self._of_function = differences_of_function(self._folders)
        if not allow_mismatch:
            refuse(self._of_function)
            refuse_strangers([*checkpoints.values()])
        #: The way in which the models' vocabularies are brought to one.
        self.alignment = Alignment(checkpoints, vocabulary, base)
        if (block := self.alignment.block) and isinstance(block.source, ModelRef):
            self._own.setdefault(block.source, block.source)  # recipes name it, too
        #: What is known of the models beside their tensors, for methods that look at it.
        self.statistics: Statistics = NoStatistics()
        self._residency = Residency(
            self._files,
            device=device,
            others=others,
            keep=keep,
            memory_budget=memory_budget,
            device_memory=device_memory,
            mapping_bytes=self.alignment.n_bytes,
        )

    @classmethod
    def of(cls, recipe: Recipe, **options: Any) -> "Parents":
        """Open a recipe's models in the vocabulary that it means; options as above."""
        vocabulary: Policy | ModelRef | TokenizerBlock = recipe.vocabulary or "error"
        return cls(recipe.models, vocabulary=vocabulary, base=recipe.base_model, **options)

    @property
    def device(self) -> torch.device:
        """The device that tensors are merged on, or the first of several."""
        return self._residency.device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Every device that the merged model lies on."""
        return self._residency.devices

    @property
    def keep(self) -> bool:
        """True where models are kept for further merges if they fit."""
        return self._residency.keep

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """The fields in which the models differ although they merge; errors first."""
        return (*self._of_function, *differences_beside(self._checkpoints))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that tell a user what becomes of tokens, and in what the models differ."""
        return (*self.alignment.notes, *(f"the models differ: {d}" for d in self.differences))

    @property
    def folder(self) -> Path:
        """The folder that the merged model's configuration comes from."""
        return self.checkpoint(self.models[0]).folder

    @property
    def tokenizer_folder(self) -> Path:
        """The folder that its tokenizer comes from: an adapter's may lie with the adapter."""
        return self.alignment.tokenizer_folder

    def checkpoint(self, ref: ModelRef) -> Checkpoint:
        """Look up the checkpoint of a model, its adapter merged into it as it is read.

        Raises:
            InputError: the model is not one of these parents.
        """
        return self._files.checkpoint(ref)

    @property
    def foreign(self) -> frozenset[str]:
        """Tensors that their models' classes do not load; none where one is not known."""
        return self._files.foreign

    @property
    def towers(self) -> frozenset[str]:
        """Tensors that are no language model's: of towers and projectors.

        Raises:
            InputError: the models' class is not known.
        """
        return self._files.towers

    def resolve(self, ref: ModelRef) -> ModelRef:
        """Find the model that a recipe names, by a name or by its path from here.

        Raises:
            InputError: it is none of these parents.
        """
        known = self._own.get(ref) or self._names.get(str(ref))
        if known is None:
            known = ref.resolved(Path())
            self.checkpoint(known)
        return self._own[known]

    def specs(self, ref: ModelRef) -> Mapping[str, TensorSpec]:
        """Give shape and stored dtype of a model's tensors, in the merged vocabulary.

        Raises:
            InputError: the model is not one of these parents.
        """
        self.checkpoint(ref)
        return self.alignment.specs(ref)

    def key(self, ref: ModelRef, name: str) -> TensorKey:
        """Make the key that a tensor is kept under, the same for all models that share it."""
        return self._files.key(ref, name)

    def factors(self, ref: ModelRef, name: str) -> tuple[Tensor, Tensor] | None:
        """Give the low-rank factors of what an adapter adds to a tensor of its base.

        Returns:
            (rank, columns) and (rows, rank), its scale in it, float32 on the CPU; None where the
            tensor is no linear layer's weight that an adapter changes, or is changed in more.
        """
        change = self._files.changes(ref).get(name)
        moved = change is not None and self.alignment.moves(ref, name)
        return None if change is None or moved else change.factors

    def is_transposed(self, ref: ModelRef, name: str) -> bool:
        """Tell if a tensor has a row, and no column, for each input of its linear layer."""
        checkpoint = self.checkpoint(ref)
        known = self.memo.recall(
            ("transposed", ref), lambda: transposed_weights(checkpoint.config, checkpoint.specs)
        )
        return name in known

    def read(self, ref: ModelRef, name: str) -> Tensor:
        """Read a tensor: as stored, or float32 where an adapter changes it.

        It is on `device`, or in host memory where there are several devices.
        Rows that belong to tokens are where the merged vocabulary has them. The tensor must not be
        written to, and `release` is to be called when it is no longer used. Any number of threads
        may read.
        """
        return self.alignment.aligned(ref, name, self._residency.read)

    def release(self, ref: ModelRef, name: str) -> None:
        """Let go of the memory that a tensor of a streamed model takes; others stay.

        A tensor that was read stays valid as long as somebody holds it.
        """
        self._residency.release(ref, name)

    @property
    def memo(self) -> Memo:
        """Facts of the tensors that hold for all candidates, as the budget allows."""
        return self._residency.memo

    @property
    def residences(self) -> Mapping[ModelRef, Residence]:
        """The memory that each model is kept in; "mapped" if it is streamed."""
        return self._residency.residences

    def reserve(self, reserved: Reserved) -> MemoryPlan:
        """Decide anew which models are kept; see `Residency.reserve`.

        Args:
            reserved: bytes by what they are for, of what is going to be allocated.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        return self._residency.reserve(reserved)

    def memory_plan(self, reserved: Reserved) -> MemoryPlan:
        """Say what `reserve` would decide; see `Residency.memory_plan`.

        Raises:
            InputError: the budget is too small even if every model is streamed.
        """
        return self._residency.memory_plan(reserved)
