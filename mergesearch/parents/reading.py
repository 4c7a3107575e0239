"""The files of models: checkpoints and adapters, read tensor by tensor."""

from collections.abc import Iterable
from functools import cached_property

from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.parents.adapter import Adapter
from mergesearch.parents.architecture import destinations, empty_model, spelled_as
from mergesearch.parents.checkpoint import HEAD, Checkpoint
from mergesearch.parents.hub import locate
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

    Raises:
        InputError: a model cannot be opened, or is of another family than the first.
    """

    def __init__(self, models: Iterable[ModelRef]) -> None:
        self.models = tuple(models)
        self._known = frozenset(self.models)
        self._checkpoints: dict[ModelPath, Checkpoint] = {}
        self._adapters: dict[ModelRef, Adapter] = {}
        for ref in self.models:
            if ref.model not in self._checkpoints:
                self._checkpoints[ref.model] = Checkpoint(locate(ref.model))
            if ref.lora is not None:
                self._adapters[ref] = Adapter(locate(ref.lora), self._checkpoints[ref.model])
        for ref in self.models[1:]:
            self._check_family(ref)
        self._agree_on_names()

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Each checkpoint once, whatever adapters there are for it."""
        return tuple(self._checkpoints.values())

    def checkpoint(self, ref: ModelRef) -> Checkpoint:
        """Look up the full checkpoint under a model, adapter aside.

        Raises:
            InputError: the model is not one of these.
        """
        if ref not in self._known:
            known = ", ".join(str(model) for model in self.models)
            raise InputError(f"the recipe names {ref}, which is none of the parents: {known}")
        return self._checkpoints[ref.model]

    def changed(self, ref: ModelRef) -> frozenset[str]:
        """List the names of the tensors that a model's adapter adds to."""
        return self._adapters[ref].changed if ref in self._adapters else frozenset()

    def factors(self, ref: ModelRef, name: str) -> tuple[Tensor, Tensor] | None:
        """Give the factors of a delta that a model's adapter adds; see `Adapter.factors`."""
        return self._adapters[ref].factors(name) if ref in self._adapters else None

    def key(self, ref: ModelRef, name: str) -> TensorKey:
        """Make the key that a tensor is kept under, the same for all models that share it."""
        return (ref if name in self.changed(ref) else ref.model, name)

    def read(self, ref: ModelRef, name: str) -> Tensor:
        """Read a tensor: a view of its file, or the float32 sum with an adapter's delta.

        W0 + delta is not rounded back to the base's dtype. It is added on the CPU, wherever it
        goes, for the same bits.
        """
        stored = self.checkpoint(ref).read(name)
        delta = self._adapters[ref].delta(name) if ref in self._adapters else None
        return stored if delta is None else stored + delta

    def release(self, ref: ModelRef, name: str) -> None:
        """Let go of the memory that reading a tensor's file took; views of it stay valid."""
        self.checkpoint(ref).release(name)

    def release_all(self) -> None:
        """Let go of the memory that reading took so far."""
        for checkpoint in self._checkpoints.values():
            checkpoint.release_all()

    @cached_property
    def foreign(self) -> frozenset[str]:
        """Tensors that the models' class does not load; none where it is not known."""
        checkpoints = self.checkpoints
        if (model := empty_model(checkpoints[0].config)) is None:
            return frozenset()
        found = [checkpoint.specs.keys() for checkpoint in checkpoints]
        return frozenset().union(*(names - destinations(model, names).keys() for names in found))

    def _agree_on_names(self) -> None:
        """Give tensors the first model's names, and each model a head if one has its own.

        The published files of an old class are spelled otherwise than those that transformers
        writes of it today.
        """
        first, *others = self.checkpoints
        for other in others:
            if not first.specs.keys() >= other.specs.keys():
                names = spelled_as(first.config, first.specs, [*other.specs, *other.buffers])
                other.rename(names)
        if any(HEAD in of.specs and not of.is_tied for of in self.checkpoints):
            for checkpoint in self.checkpoints:
                if checkpoint.says_tied:
                    checkpoint.untie()

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
