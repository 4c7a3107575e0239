"""Negative log-likelihoods of packed batches, with gradients."""

from inspect import signature
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mergesearch.engines.torch.loglikelihood import logits_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mergesearch.engines.torch.batches import LikelihoodBatches
    from mergesearch.engines.torch.packing import TokenPair


def losses(model: "PreTrainedModel", batches: "LikelihoodBatches") -> Tensor:
    """Compute negative log-likelihoods (nats), (requests,), in float32 at least.

    Args:
        model: whose parameters that require a gradient get one.
        batches: of no shared prefixes, which run without gradients.
    """
    device = model.device
    dtype = torch.promote_types(model.dtype, torch.float32)
    by_pair = torch.zeros(len(batches.pairs), dtype=dtype, device=device)
    for batch in batches.batches:
        logits = logits_of(model, batch, {"use_cache": False})
        scored = _loss(logits, batch.scored_at, batch.scored_id, dtype)
        by_pair = by_pair.index_add(0, torch.from_numpy(batch.owners).to(device), scored)
    for i in batches.unpacked:
        alone = _loss_alone(model, batches.pairs[i], dtype)
        by_pair = by_pair.index_add(0, torch.tensor([i], device=device), alone[None])
    by_request = torch.zeros(batches.n_requests, dtype=dtype, device=device)
    return by_request.index_add(0, torch.from_numpy(batches.owners).to(device), by_pair)


def _loss(logits: Tensor, at: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the loss of each scored token, (tokens,).

    Args:
        logits: (positions, vocabulary).
        at: of each token the row of its logits.
        ids: of each token.
        dtype: of the result.
    """
    logits = logits.to(dtype)
    return logits.logsumexp(-1)[at] - logits[at, ids]


def _loss_alone(model: "PreTrainedModel", pair: "TokenPair", dtype: torch.dtype) -> Tensor:
    """Compute the loss of one continuation, in a forward pass of its own."""
    context, continuation = pair
    ids = torch.tensor([[*context, *continuation[:-1]]], device=model.device)
    takes = signature(model.forward).parameters
    cache = {"use_cache": False} if "use_cache" in takes else {}
    logits = model(input_ids=ids, **cache).logits[0, len(context) - 1 :]
    at = torch.arange(len(continuation), device=model.device)
    return _loss(logits, at, torch.tensor(continuation, device=model.device), dtype).sum()
