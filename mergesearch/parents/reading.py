"""The files of models: checkpoints and adapters, read tensor by tensor."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.parents.adapted import AdaptedCheckpoint
from mergesearch.parents.adapter import Adapter
from mergesearch.parents.architecture import (
    destinations,
    empty_model,
    head_name,
    spelled_as,
    tower_names,
)
from mergesearch.parents.change import Change
from mergesearch.parents.checkpoint import HEAD, Checkpoint, Remade
from mergesearch.parents.held import HeldTensors
from mergesearch.parents.hub import locate
from mergesearch.parents.layers import layer_of
from mergesearch.parents.planned import checkpoint_of
from mergesearch.parents.remade import remade
from mergesearch.recipe import ModelPath, ModelRef

#: What must be the same in the configurations of all models.
_FAMILY_KEYS = ("model_type", "hidden_size", "n_embd", "d_model")

#: What a tensor is known by: models share what no adapter changes.
TensorKey = tuple[ModelRef | ModelPath, str]


class ModelFiles:
    """The checkpoints and adapters of models, each opened once.

    Opening reads headers and adapters. Any number of threads may read.

    Args:
        models: the models; the first decides of which family all must be.
        held: tensors of those that are in memory.
        weights: without them, only specs are known of those whose weights are not here; see
            `PlannedCheckpoint`.

    Raises:
        InputError: a model cannot be opened, or is of another family than the first.
    """

    def __init__(
        self,
        models: Iterable[ModelRef],
        held: Mapping[ModelPath, HeldTensors] | None = None,
        *,
        weights: bool = True,
    ) -> None:
        held = held or {}
        self.models = tuple(models)
        paths = dict.fromkeys(ref.model for ref in self.models)
        bases = {path: checkpoint_of(path, held.get(path), weights=weights) for path in paths}
        self._checkpoints: dict[ModelRef, Checkpoint] = {
            ref: bases[ref.model] for ref in self.models
        }
        for ref in self.models[1:]:
            self._check_family(ref)
        _agree_on_names(list(bases.values()))
        _name_head(list(bases.values()))
        self._adapted: dict[ModelRef, AdaptedCheckpoint] = {}
        for ref in self.models:
            if ref.lora is not None:
                base = bases[ref.model]
                adapted = AdaptedCheckpoint(base, Adapter(locate(ref.lora), base))
                self._checkpoints[ref] = self._adapted[ref] = adapted
        _agree_on_heads([*bases.values(), *self._adapted.values()])
        self._copies = {ref: self._count_copies(ref) for ref in self.models}

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Each model's checkpoint, its adapter merged into it."""
        return tuple(self._checkpoints.values())

    def checkpoint(self, ref: ModelRef) -> Checkpoint:
        """Look up the checkpoint of a model, its adapter merged into it as it is read.

        Raises:
            InputError: the model is not one of these.
        """
        if ref not in self._checkpoints:
            known = ", ".join(str(model) for model in self.models)
            raise InputError(f"the recipe names {ref}, which is none of the parents: {known}")
        return self._checkpoints[ref]

    def changes(self, ref: ModelRef) -> Mapping[str, Change]:
        """List what a model's adapter makes of its base's tensors, by their names."""
        return self._adapted[ref].changes if ref in self._adapted else {}

    def copies(self, ref: ModelRef) -> Mapping[str, int]:
        """Count what computing takes beside the result, for what is in no file."""
        return self._copies[ref]

    def key(self, ref: ModelRef, name: str) -> TensorKey:
        """Make the key that a tensor is kept under, the same for all models that share it."""
        return (ref if name in self.copies(ref) else ref.model, name)

    def read(self, ref: ModelRef, name: str) -> Tensor:
        """Read a tensor: a view of its file, or what an adapter makes of it, float32."""
        return self.checkpoint(ref).read(name)

    def release(self, ref: ModelRef, name: str) -> None:
        """Let go of the memory that reading a tensor's file took; views of it stay valid."""
        self.checkpoint(ref).release(name)

    def release_all(self) -> None:
        """Let go of the memory that reading took so far."""
        for checkpoint in self._checkpoints.values():
            checkpoint.release_all()

    @cached_property
    def foreign(self) -> frozenset[str]:
        """Tensors that their models' classes do not load; none where one is not known."""
        names: set[str] = set()
        for checkpoint in self.checkpoints:
            if (model := empty_model(checkpoint.config)) is None:
                return frozenset()
            names |= checkpoint.specs.keys() - destinations(model, checkpoint.specs).keys()
        return frozenset(names)

    @cached_property
    def towers(self) -> frozenset[str]:
        """Tensors that are no language model's: of towers and projectors.

        Raises:
            InputError: the models' class is not known.
        """
        first = self.checkpoints[0]
        return tower_names(first.config, first.specs)

    def _count_copies(self, ref: ModelRef) -> dict[str, int]:
        specs = self._checkpoints[ref].specs
        made = {name: 1 for name, spec in specs.items() if isinstance(spec, Remade)}
        return made | {name: change.n_copies for name, change in self.changes(ref).items()}

    def _check_family(self, ref: ModelRef) -> None:
        """Refuse another architecture or hidden size than the first model's."""
        first, other = self.checkpoint(self.models[0]), self.checkpoint(ref)
        for key in _FAMILY_KEYS:
            ours, theirs = first.config.get(key), other.config.get(key)
            if ours != theirs:
                raise InputError(
                    f"all models must be of one architecture: {key} is {ours!r} in {first.folder} "
                    f"and {theirs!r} in {other.folder}"
                )


def _agree_on_names(checkpoints: Sequence[Checkpoint]) -> None:
    """Give tensors the first checkpoint's names.

    The published files of an old class are spelled otherwise than those that transformers writes of
    it today, and some have experts in one tensor where others have one each.
    """
    first, *others = checkpoints
    for other in others:
        if not first.specs.keys() >= other.specs.keys():
            names = spelled_as(first.config, first.specs, [*other.specs, *other.buffers])
            other.rename(names)
        if (first.specs.keys() ^ other.specs.keys()) - {HEAD}:
            other.remake(remade(first, other))


def _name_head(checkpoints: Sequence[Checkpoint]) -> None:
    """Name the output head, by the class only where one may be stored."""
    if any(HEAD in of.specs for of in checkpoints):
        return
    for of in checkpoints:
        if of.embeddings is None:
            continue
        shape = of.specs[of.embeddings].shape
        alike = {n for n, spec in of.specs.items() if spec.shape == shape and layer_of(n) is None}
        if alike - {of.embeddings} and (head := head_name(of.config, of.specs)) is not None:
            for checkpoint in checkpoints:
                checkpoint.head = head
            return


def _agree_on_heads(checkpoints: Sequence[Checkpoint]) -> None:
    """Give each tied model an output head by itself, if any has one of its own."""
    if any(of.head in of.specs and not of.is_tied for of in checkpoints):
        for checkpoint in checkpoints:
            if checkpoint.says_tied:
                checkpoint.untie()
