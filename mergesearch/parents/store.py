"""The parents of a study: opened once, read tensor by tensor."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.parents.adapter import Adapter
from mergesearch.parents.checkpoint import Checkpoint, TensorSpec
from mergesearch.parents.hub import locate
from mergesearch.recipe import ModelPath, ModelRef


class Parents:
    """Every model that a study's recipes may name; checkpoints and adapters are opened once.

    Args:
        models: the models, the base first; the first gives the merged model its configuration
            and tokenizer.

    Raises:
        InputError: a model cannot be opened, or is of another family than the first.
    """

    def __init__(self, models: Iterable[ModelRef]) -> None:
        self.models = tuple(dict.fromkeys(models))
        self._checkpoints: dict[ModelPath, Checkpoint] = {}
        self._adapters: dict[ModelRef, Adapter] = {}
        for ref in self.models:
            if ref.model not in self._checkpoints:
                self._checkpoints[ref.model] = Checkpoint(locate(ref.model))
            if ref.lora is not None:
                self._adapters[ref] = Adapter(locate(ref.lora), self.checkpoint(ref))
        for ref in self.models[1:]:
            self._check_family(ref)

    def checkpoint(self, ref: ModelRef) -> Checkpoint:
        """The full checkpoint under a model, adapter aside.

        Raises:
            InputError: the model is not one of these parents.
        """
        if ref not in self.models:
            known = ", ".join(str(model) for model in self.models)
            raise InputError(f"the recipe names {ref}, which is none of the parents: {known}")
        return self._checkpoints[ref.model]

    def specs(self, ref: ModelRef) -> Mapping[str, TensorSpec]:
        """Shape and stored dtype of each of a model's tensors."""
        return self.checkpoint(ref).specs

    def read(self, ref: ModelRef, name: str) -> Tensor:
        """A tensor of a model: as stored, or float32 where an adapter adds to it.

        W0 + delta is not rounded back to the base's dtype.
        """
        stored = self.checkpoint(ref).read(name)
        delta = self._adapters[ref].delta(name) if ref in self._adapters else None
        return stored if delta is None else stored.float() + delta

    @property
    def folder(self) -> Path:
        """The folder that the merged model's configuration and tokenizer come from."""
        return self.checkpoint(self.models[0]).folder

    def _check_family(self, ref: ModelRef) -> None:
        """Refuse another architecture, hidden size or vocabulary than the first model's."""
        first, other = self.checkpoint(self.models[0]), self.checkpoint(ref)
        for key in ("model_type", "hidden_size", "n_embd", "d_model"):
            ours, theirs = first.config.get(key), other.config.get(key)
            if ours != theirs:
                raise InputError(
                    f"all models must be of one architecture: {key} is {ours!r} in {first.folder} "
                    f"and {theirs!r} in {other.folder}"
                )
        if first.vocabulary is not None and other.vocabulary is not None:
            _check_same_vocabulary(first, other)


def _check_same_vocabulary(first: Checkpoint, other: Checkpoint) -> None:
    ours: Any = first.vocabulary
    theirs: Any = other.vocabulary
    odd = sorted(set(ours.items()) ^ set(theirs.items()), key=lambda item: (item[1], item[0]))
    if odd:
        token, index = odd[0]
        raise InputError(
            f"all models must share one vocabulary: {len(ours)} tokens in {first.folder} and "
            f"{len(theirs)} in {other.folder}; they differ first at token {token!r}, id {index}"
        )
