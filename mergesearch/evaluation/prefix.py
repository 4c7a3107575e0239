"""Prefixes that run once: their keys and values, given to every row behind them."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

#: Bytes of keys and values that a model's prefixes may hold between batches.
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a prefix, (1, heads, tokens, head size) for each layer."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def n_bytes(self) -> int:
        """What it holds in memory."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def before(self, n_rows: int, *, growing: bool = False) -> DynamicCache:
        """A cache in which every row stands behind the prefix.

        Args:
            n_rows: of the batch.
            growing: keep what the rows add, as generation needs; else it is forgotten at once.
        """
        cache = DynamicCache()
        kind = DynamicLayer if growing else _Passing
        cache.layers = [kind() for _ in self.layers]
        for layer, (keys, values) in zip(cache.layers, self.layers, strict=True):
            layer.lazy_initialization(keys, values)
            layer.keys = keys.expand(n_rows, -1, -1, -1)
            layer.values = values.expand(n_rows, -1, -1, -1)
        return cache


class _Passing(DynamicLayer):
    """A layer that shows its rows the prefix and themselves, and keeps only the prefix."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """What the rows see: the prefix, then themselves."""
        keys = torch.cat([self.keys, key_states], dim=-2)
        return keys, torch.cat([self.values, value_states], dim=-2)


class Prefixes:
    """The prefixes of one model, with the weights it has now, each computed once."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._kept: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    def of(self, tokens: tuple[int, ...]) -> Prefix:
        """The prefix of these token ids, at least one; the least used make room for it."""
        prefix = self._kept.pop(tokens, None) or self._run(tokens)
        self._kept[tokens] = prefix
        while len(self._kept) > 1 and sum(p.n_bytes for p in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return prefix

    def _run(self, tokens: tuple[int, ...]) -> Prefix:
        ids = torch.tensor([tokens], device=self._model.device)
        cache = DynamicCache()
        with torch.no_grad():
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))
