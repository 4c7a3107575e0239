"""The most that one forward pass may hold, rows and bytes, from a model's sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mergesearch.engines.torch.packing import Context, Group, rows_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mergesearch.engines.torch.hflm import Harness

#: Columns that rows are filled to with further contexts: more means less padding and fewer copies
#: of the prefix, and more keys that a query looks at in vain.
_COLUMNS_OF_A_ROW = 64

#: Tokens of a forward pass: enough for matrix products to be efficient.
_TOKENS = {"cpu": 2048}
_TOKENS_ELSEWHERE = 16_384

#: Rows of a batch that generates.
_PROMPTS = {"cpu": 64}
_PROMPTS_ELSEWHERE = 256

#: Linear layers of a layer.
_LINEAR_LAYERS = 7

#: Attributes of a model's config that bound how far a layer looks back.
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")

#: Bytes of the keys and values of a batch, and of its logits.
_CACHE_BYTES = 1 << 30
_LOGITS_BYTES = 1 << 28


@dataclass(frozen=True)
class Limits:
    """The largest batches of one model."""

    device: str
    #: Bytes of a number that the model computes.
    itemsize: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    #: Numbers of the queries, and of the keys, of one token in one layer.
    query_size: int
    key_size: int
    vocab_size: int
    #: Rows at most, where the user says so.
    batch_size: int | None = None
    #: Batches are so many times smaller: a device was too small for more.
    divisor: int = 1
    columns_of_a_row: int = _COLUMNS_OF_A_ROW

    @classmethod
    def of(
        cls, config: "PreTrainedConfig", dtype: torch.dtype, device: str, batch_size: int | None
    ) -> "Limits":
        """Read a model's configuration, for computing in `dtype` on a device type."""
        config = config.get_text_config()
        n_heads = getattr(config, "num_attention_heads", 1)
        n_key_heads = getattr(config, "num_key_value_heads", None) or n_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
        return cls(
            device=device,
            itemsize=dtype.itemsize,
            hidden_size=config.hidden_size,
            intermediate_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            n_layers=config.num_hidden_layers,
            query_size=n_heads * head_size,
            key_size=n_key_heads * head_size,
            vocab_size=config.vocab_size,
            batch_size=batch_size,
        )

    @property
    def cache_bytes(self) -> int:
        """Keys and values of one token, in all layers."""
        return 2 * self.n_layers * self.key_size * self.itemsize

    @property
    def logits_bytes(self) -> int:
        """Logits of one token, in float32."""
        return 4 * self.vocab_size

    def rows(self, n_columns: int, n_prefix: int, n_kept: int) -> int:
        """Count the rows of a batch, from the columns, kept positions and prefix of each."""
        n = _TOKENS.get(self.device, _TOKENS_ELSEWHERE) // max(n_columns, 1)
        cache = _CACHE_BYTES // ((n_columns + n_prefix) * self.cache_bytes)
        logits = _LOGITS_BYTES // (n_kept * self.logits_bytes)
        return max(1, min(n, cache, logits, self.batch_size or n) // self.divisor)

    def cut(self, group: Group) -> Iterator[tuple[list[list[Context]], int, int]]:
        """Cut a group's rows into batches, the widest first.

        Yields:
            The rows of a batch, their columns, and the most kept positions of a row from there on.
        """
        rows = rows_of(group, self.columns_of_a_row)
        while rows:
            n_columns = sum(context.n_columns(group.n_prefix) for context in rows[0])
            n_kept = max(sum(context.n_kept for context in row) for row in rows)
            n_rows = self.rows(n_columns, group.n_prefix, n_kept)
            yield rows[:n_rows], n_columns, n_kept
            rows = rows[n_rows:]

    def prompts(self, n_columns: int) -> int:
        """Count the rows of a batch that generates, from the columns that a row comes to."""
        n = _PROMPTS.get(self.device, _PROMPTS_ELSEWHERE)
        cache = _CACHE_BYTES // (n_columns * self.cache_bytes)
        return max(1, min(n, cache, self.batch_size or n) // self.divisor)

    def batch_bytes(self, n_rows: int, n_columns: int, n_prefix: int, n_kept: int) -> int:
        """Count the bytes of a forward pass at its peak, the weights aside.

        Args:
            n_rows: of the batch.
            n_columns: of each row, behind its prefix.
            n_prefix: tokens of the prefix.
            n_kept: positions of the whole batch where the output layer is needed.
        """
        seen = n_rows * (n_columns + n_prefix)
        # in turn: the stream, what goes in and out of a layer's halves, the gated product
        tokens = n_rows * n_columns * (6 * self.hidden_size + 3 * self.intermediate_size)
        # keys and values behind their prefix, and again for each head of the queries
        attention = 2 * seen * (self.key_size + self.query_size) + seen * n_columns
        logits = 2 * n_kept * self.logits_bytes
        prefix = n_prefix * self.cache_bytes
        return (tokens + attention) * self.itemsize + logits + prefix

    def backward_bytes(
        self,
        n_rows: int,
        n_columns: int,
        n_kept: int,
        *,
        checkpointing: bool,
        rank: int | None,
    ) -> tuple[int, int]:
        """Count what a forward pass keeps, and the largest step of the backward pass.

        As SDPA and the gated layers of Llama keep it; measured by torch's saved tensors.

        Args:
            n_rows: of the batch.
            n_columns: of each row.
            n_kept: positions of the whole batch where the output layer is needed.
            checkpointing: layers keep their inputs only.
            rank: of what is added to each linear layer; None where weights have gradients.

        Returns:
            Bytes that are kept until the backward pass is there, and its largest step.
        """
        dense = rank is None
        tokens = n_rows * n_columns
        # queries, keys, values and what attention gives, and the gated product
        of_token = 4 * self.query_size + 3 * self.intermediate_size
        if dense:  # and the inputs of linear layers and of norms' weights
            of_token += 5 * self.hidden_size + self.intermediate_size
        else:
            of_token += _LINEAR_LAYERS * (rank or 0)
        # and the inputs of norms, which compute in float32
        layer = tokens * (of_token * self.itemsize + 2 * self.hidden_size * max(4, self.itemsize))
        inputs = tokens * self.hidden_size * self.itemsize
        mask = n_rows * n_columns**2 * self.itemsize
        kept = self.n_layers * (inputs if checkpointing else layer) + mask
        logits = n_kept * self.logits_bytes
        # the logits' exponentials and gradients; a layer's gradients
        step = max(2 * logits, tokens * (4 * self.intermediate_size) * self.itemsize)
        return kept + logits, step + (layer if checkpointing else 0)

    @property
    def layers_gradient_bytes(self) -> int:
        """The gradients of all weights of the layers at once."""
        attention = 2 * self.hidden_size * (self.query_size + self.key_size)
        gated = 3 * self.hidden_size * self.intermediate_size
        return self.n_layers * (attention + gated) * self.itemsize

    @property
    def largest_gradient_bytes(self) -> int:
        """The gradient of the embedding, which a tied output layer's waits for."""
        return 2 * self.vocab_size * self.hidden_size * self.itemsize

    def prompts_bytes(self, n_rows: int, n_columns: int) -> int:
        """Count the same for a batch that generates rows of so many columns at their end."""
        cache = n_rows * n_columns * self.cache_bytes
        return cache + self.batch_bytes(n_rows, n_columns, 0, n_rows)


def longest_packed(harness: "Harness") -> int:
    """Count the tokens up to which packed rows are right: of context and windows."""
    config = harness.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in _WINDOWS]
    return min([harness.max_length, *(w for w in windows if isinstance(w, int) and w > 0)])
