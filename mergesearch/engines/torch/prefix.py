"""Prefixes that run once, whose keys and values every row behind them is given."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Bytes of keys and values that a model's prefixes may hold between batches.
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a prefix, (1, heads, tokens, head size) for each layer."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def n_bytes(self) -> int:
        """The bytes of its keys and values."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def before(self, n_rows: int) -> DynamicCache:
        """Make a cache in which every row of a batch stands behind the prefix, and stays."""
        layers = [_Passing() for _ in self.layers]
        for layer, (keys, values) in zip(layers, self.layers, strict=True):
            layer.lazy_initialization(keys, values)
            layer.keys = keys.expand(n_rows, -1, -1, -1)
            layer.values = values.expand(n_rows, -1, -1, -1)
        return _cache_of(layers)

    def begin(self, n_rows: int, n_columns: int) -> DynamicCache:
        """Make a cache for rows that grow to so many columns, the prefix included."""
        cache = growing(len(self.layers), n_rows, n_columns)
        for layer, (keys, values) in zip(cache.layers, self.layers, strict=True):
            layer.update(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1))
        return cache


def growing(n_layers: int, n_rows: int, n_columns: int) -> DynamicCache:
    """Make an empty cache for rows that grow to so many columns."""
    return _cache_of([GrowingLayer(n_rows, n_columns) for _ in range(n_layers)])


def _cache_of(layers: Sequence[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


class _Passing(DynamicLayer):
    """A layer that shows rows the prefix and themselves, and keeps only the prefix."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Show the rows the prefix, then themselves."""
        keys = torch.cat([self.keys, key_states], dim=-2)
        return keys, torch.cat([self.values, value_states], dim=-2)


class GrowingLayer(DynamicLayer):
    """A layer with room for all columns; transformers' own copies all at each token.

    Args:
        n_rows: of the batch.
        n_columns: that there will be.
    """

    def __init__(self, n_rows: int, n_columns: int) -> None:
        super().__init__()
        self._shape = n_rows, n_columns
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Show everything so far, the new states at its end."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._write(slice(None), slice(start, end), key_states, value_states)
        return self.keys, self.values

    def put(self, rows: slice, end: int, keys: Tensor, values: Tensor) -> None:
        """Write some rows' states, the last before column `end`; before them are zeros."""
        self._write(rows, slice(end - keys.shape[-2], end), keys, values)

    def _write(self, rows: slice, columns: slice, keys: Tensor, values: Tensor) -> None:
        if self._room is None:
            self.lazy_initialization(keys, values)
            n_rows, n_columns = self._shape
            shape = (n_rows, keys.shape[1], n_columns, keys.shape[3])
            # what nobody sees must be finite all the same: it is multiplied by 0
            self._room = keys.new_zeros(shape), values.new_zeros((*shape[:3], values.shape[3]))
        room_of_keys, room_of_values = self._room
        room_of_keys[rows, :, columns] = keys
        room_of_values[rows, :, columns] = values
        self.keys = room_of_keys[:, :, : columns.stop]
        self.values = room_of_values[:, :, : columns.stop]


def cache_argument(model: "PreTrainedModel") -> str:
    """Name the forward pass's cache: `past_key_values` before transformers 5.24."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def behind(model: "PreTrainedModel", cache: DynamicCache) -> dict[str, Any]:
    """Make the arguments by which a forward pass goes on from a cache."""
    return {cache_argument(model): cache, "use_cache": True}


class Prefixes:
    """The prefixes of one model, with the weights it has now, each computed once."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model = model
        self._kept: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    def of(self, tokens: tuple[int, ...]) -> Prefix:
        """Look up or run a prefix of token ids, at least one; the least used make room."""
        prefix = self._kept.pop(tokens, None) or self._run(tokens)
        self._kept[tokens] = prefix
        while len(self._kept) > 1 and sum(p.n_bytes for p in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return prefix

    def _run(self, tokens: tuple[int, ...]) -> Prefix:
        ids = torch.tensor([tokens], device=self._model.device)
        cache = DynamicCache()
        with torch.no_grad():
            self._model(input_ids=ids, logits_to_keep=1, **behind(self._model, cache))
        return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))
