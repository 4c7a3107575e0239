"""The change that an adapter makes to one tensor of its base, computed by peft."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mergesearch.parents.checkpoint import Checkpoint
from mergesearch.parents.fused import Group

#: The name under which peft loads an adapter.
ADAPTER = "default"


@dataclass(frozen=True)
class Piece:
    """A stored tensor among those that a parameter of the model is made of."""

    group: Group
    parameter: str
    name: str

    def added_by(self, layer: Any) -> Tensor:
        """Compute what a layer of peft adds to it, of experts to its own alone."""
        if getattr(layer, "num_experts", 1) > 1:
            left, right, scale = layer.get_delta_factors(ADAPTER)
            i = self.group.place_of(self.name)
            return self.group.take_back_one((left[i] @ right[i] * scale)[None], self.name)
        whole = {name: torch.zeros(shape) for name, shape in self.group.parameters.items()}
        whole[self.parameter] = layer.get_delta_weight(ADAPTER)
        return self.group.take_back(whole)[self.name]


@dataclass(frozen=True)
class Part:
    """A layer of peft, and which parameter of the layer below it is meant."""

    layer: Any
    parameter: str = "weight"
    #: Where the parameter is not stored as one, what is stored of it.
    piece: Piece | None = None

    @property
    def is_sum(self) -> bool:
        """True where the layer adds what does not depend on the weight."""
        return hasattr(self.layer, "lora_variant") and not self.layer.lora_variant

    @property
    def adds_to_weight(self) -> bool:
        """True where that is a sum with the weight, not with a bias."""
        return self.is_sum and self.parameter == "weight"

    @property
    def rows(self) -> list[int]:
        """The rows of a vocabulary that it writes, whatever was there."""
        return list(getattr(self.layer, "token_indices", {}).get(ADAPTER, ()))

    def merged(self, value: Tensor) -> Tensor:
        """Compute what peft makes of the layer's weight, or bias, as a new tensor."""
        layer = self.layer
        if self.parameter == "bias":
            return value + layer.lora_B[ADAPTER].bias * layer.scaling[ADAPTER]
        if self.piece is not None:
            return value + self.piece.added_by(layer)
        if self.is_sum:
            return value + layer.get_delta_weight(ADAPTER)
        # a layer of its own for every thread, with the adapter's weights, which are only read
        alone = deepcopy(layer, {id(weight): weight for weight in layer.parameters()})
        alone.get_base_layer().weight = nn.Parameter(value.float(), requires_grad=False)
        alone.merge()
        return alone.get_base_layer().weight.data

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Give the factors (A, B) of a sum with a linear layer's weight, where it is one.

        The sum adds B A to the weight as it is stored: GPT-2's layers store W.T, so that theirs
        are (B.T, A.T).
        """
        from peft.tuners.lora import Linear
        from transformers.pytorch_utils import Conv1D

        layer = self.layer
        if not (self.is_sum and isinstance(layer, Linear) and self.parameter == "weight"):
            return None
        a, b = (part[ADAPTER].weight.detach().float() for part in (layer.lora_A, layer.lora_B))
        b = b * layer.scaling[ADAPTER]
        below = layer.get_base_layer()
        if isinstance(below, Conv1D):
            return b.T, a.T
        return (a, b) if isinstance(below, nn.Linear) else None


@dataclass(frozen=True)
class Change:
    """The way to one tensor of an adapted model: a start, and what is merged into it."""

    #: A tensor of the base, by its name there, or the adapter's own in its place.
    start: str | Tensor
    #: The tensor of the base that it comes in place of.
    replaces: str
    #: In the order in which peft merges them.
    parts: tuple[Part, ...]
    shape: tuple[int, ...]
    #: Whether it is the weight of one module, and has the base's shape.
    is_plain: bool

    def value(self, base: Checkpoint) -> Tensor:
        """Compute the tensor, float32 on the CPU; any number of threads may ask at once."""
        value = base.read(self.start) if isinstance(self.start, str) else self.start.detach()
        if value.shape != self.shape:
            value = _with_rows(value, self.shape[0])
        with torch.no_grad():
            for part in self.parts:
                value = part.merged(value)
        return value.float()

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """The low-rank factors where it is the base's tensor plus their product."""
        if not self.is_plain or not isinstance(self.start, str) or len(self.parts) != 1:
            return None
        return self.parts[0].factors()

    @property
    def n_copies(self) -> int:
        """Count the float32 tensors of its size that computing takes beside the result."""
        if all(part.is_sum for part in self.parts):
            return min(len(self.parts), 1)
        return 4  # the weight copied twice, its delta, and the norm's sum


def _with_rows(value: Tensor, n_rows: int) -> Tensor:
    """Take the first rows, and leave those that a part of the change writes at zero."""
    if n_rows <= len(value):
        return value[:n_rows]
    return torch.cat([value, value.new_zeros(n_rows - len(value), *value.shape[1:])])
