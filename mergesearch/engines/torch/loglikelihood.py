"""Log-likelihoods of packed batches, the output layer run only where needed."""

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mergesearch.engines.torch.packing import Batch
from mergesearch.engines.torch.prefix import Prefixes, behind
from mergesearch.requests import Likelihood

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Logits that a processor looks at together: what is between stays in its cache.
_CHUNK = 1 << 19


def loglikelihoods(
    model: "PreTrainedModel", prefixes: Prefixes, batch: Batch
) -> Iterator[tuple[int, Likelihood]]:
    """Answer one batch, each answer with the index of its owner."""
    cache: dict[str, Any] = {"use_cache": False}
    if batch.prefix:
        cache = behind(model, prefixes.of(batch.prefix).before(len(batch.ids)))
    with torch.no_grad():
        logits = logits_of(model, batch, cache)
        scored = _scored(logits, batch.scored_at, batch.scored_id).cpu().numpy()  # the one sync
    owners, token_of = np.unique(batch.owners, return_inverse=True)
    logprobs = np.bincount(token_of, scored[0])
    misses = np.bincount(token_of, 1 - scored[1])
    for owner, logprob, missed in zip(owners, logprobs, misses, strict=True):
        yield int(owner), (float(logprob), not missed)


def logits_of(model: "PreTrainedModel", batch: Batch, cache: dict[str, Any]) -> Tensor:
    """Compute the logits where a batch is scored, (kept positions, vocabulary).

    Args:
        model: as it is now.
        batch: of that model's tokens.
        cache: the arguments that give the batch's prefix to the forward pass, or no cache.
    """
    with _head_only_at(model, batch.kept_row, batch.kept_column):
        return model(
            input_ids=batch.ids,
            attention_mask=batch.attention_mask(model.dtype),
            position_ids=batch.positions,
            **cache,
        ).logits[0]


def _scored(logits: Tensor, at: Tensor, ids: Tensor) -> Tensor:
    """Score tokens: the log-probability, and 1 where it is the likeliest, (2, tokens).

    Args:
        logits: (kept positions, vocabulary).
        at: of each token the row of its logits, rising.
        ids: of each token.
    """
    if logits.device.type != "cpu":
        logprobs = logits.float().log_softmax(-1)
        return torch.stack([logprobs[at, ids], (logprobs.argmax(-1)[at] == ids).float()])
    scores = torch.empty(2, len(at))
    n = max(1, _CHUNK // logits.shape[-1])
    starts = torch.arange(0, len(logits) + n, n)
    edges = torch.searchsorted(at, starts).tolist()
    for chunk, start, here in zip(logits.split(n), starts.tolist(), pairwise(edges), strict=False):
        tokens = slice(*here)
        rows, chosen = at[tokens] - start, ids[tokens]
        logprobs = chunk.float().log_softmax(-1)
        scores[0, tokens] = own = logprobs[rows, chosen]
        # several times faster than argmax, which is left to find the first among equals
        best = own == logprobs.amax(-1)[rows]
        for token in best.nonzero()[:, 0].tolist():
            best[token] = logprobs[rows[token]].argmax() == chosen[token]
        scores[1, tokens] = best.float()
    return scores


@contextlib.contextmanager
def _head_only_at(model: "PreTrainedModel", rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Let the output layer see some positions only, (1, positions, hidden size).

    What the model does to its logits after it, such as soft-capping, is left to the model.
    """

    def gather(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        stream = inputs[0]  # where the output layer is, which may be another device
        return (stream[rows.to(stream.device), columns.to(stream.device)][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()
