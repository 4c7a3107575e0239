"""Losses of packed batches, with gradients: likelihoods and divergences."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mergesearch.engines.base import Predictions
from mergesearch.engines.torch.loglikelihood import logits_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mergesearch.engines.torch.batches import LikelihoodBatches

#: The likeliest tokens at a position that are kept of a model's predictions.
N_KEPT = 256


@dataclass(frozen=True)
class Scored:
    """The scored tokens of one forward pass."""

    #: (positions, vocabulary), in float32 at least.
    logits: Tensor
    #: Of each token the row of its logits, and its id, (tokens,).
    at: Tensor
    ids: Tensor
    #: Of each token the index of its pair, and its number in the pair's continuation, (tokens,).
    pairs: np.ndarray
    numbers: np.ndarray


def losses(model: "PreTrainedModel", batches: "LikelihoodBatches") -> Tensor:
    """Compute negative log-likelihoods (nats), (requests,), in float32 at least.

    Args:
        model: whose parameters that require a gradient get one.
        batches: of no shared prefixes, which run without gradients.
    """
    return _by_request(
        model, batches, lambda s: s.logits.logsumexp(-1)[s.at] - s.logits[s.at, s.ids]
    )


def divergences(
    model: "PreTrainedModel", batches: "LikelihoodBatches", references: Sequence[Predictions]
) -> Tensor:
    """Compute mean divergences from references (nats), (requests,).

    Args:
        model: whose parameters that require a gradient get one.
        batches: of no shared prefixes.
        references: of each request.
    """
    first = _first_numbers(batches)
    ids = [reference.ids.to(model.device) for reference in references]
    logprobs = [reference.logprobs.to(model.device) for reference in references]

    def of_tokens(scored: Scored) -> Tensor:
        rows = [
            (batches.owners[pair], first[pair] + number)
            for pair, number in zip(scored.pairs, scored.numbers, strict=True)
        ]
        wanted = torch.stack([ids[owner][row] for owner, row in rows]).long()
        theirs = torch.stack([logprobs[owner][row] for owner, row in rows])
        ours = scored.logits[scored.at[:, None], wanted]
        ours = ours - scored.logits.logsumexp(-1)[scored.at][:, None]
        return _divergence(theirs.to(ours.dtype), ours)

    sums = _by_request(model, batches, of_tokens)
    return sums / sums.new_tensor([len(reference.ids) for reference in references])


def predictions(model: "PreTrainedModel", batches: "LikelihoodBatches") -> list[Predictions]:
    """Gather the likeliest tokens where each request is scored, on the CPU."""
    first = _first_numbers(batches)
    found: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in range(batches.n_requests)]
    with torch.no_grad():
        for scored in _scored(model, batches):
            k = min(N_KEPT, scored.logits.shape[-1])
            logprobs, ids = scored.logits.log_softmax(-1).topk(k)
            logprobs, ids = logprobs.float().cpu(), ids.int().cpu()
            at = scored.at.tolist()
            for row, pair, number in zip(at, scored.pairs, scored.numbers, strict=True):
                place = int(first[pair] + number)
                found[batches.owners[pair]][place] = ids[row], logprobs[row]
    return [
        Predictions(
            torch.stack([of[i][0] for i in range(len(of))]),
            torch.stack([of[i][1] for i in range(len(of))]),
        )
        for of in found
    ]


@contextmanager
def recomputed(model: "PreTrainedModel") -> Iterator[None]:
    """Let layers keep their inputs only, and compute the rest again going backward.

    transformers' own switch wants the training mode, which turns dropout on.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    # a model over several devices has forwards of its own there
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        run = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        vars(layer)["forward"] = run
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del vars(layer)["forward"]
            else:
                vars(layer)["forward"] = forward


def _divergence(theirs: Tensor, ours: Tensor) -> Tensor:
    """KL(theirs || ours) over k tokens and all others as one, (tokens,).

    Args:
        theirs: log-probabilities (tokens, k).
        ours: likewise, of the same tokens.
    """
    least = torch.finfo(ours.dtype).eps
    known = (theirs.exp() * (theirs - ours)).sum(-1)
    their_rest = 1 - theirs.exp().sum(-1)
    our_rest = (1 - ours.exp().sum(-1)).clamp(min=least)
    others = their_rest * (their_rest.clamp(min=least).log() - our_rest.log())
    return known + torch.where(their_rest > least, others, torch.zeros_like(others))


def _by_request(
    model: "PreTrainedModel",
    batches: "LikelihoodBatches",
    of_tokens: Callable[[Scored], Tensor],
) -> Tensor:
    """Add up values of scored tokens by request, (requests,)."""
    owners = torch.from_numpy(batches.owners).to(model.device)
    total = torch.zeros(batches.n_requests, dtype=_dtype(model), device=model.device)
    for scored in _scored(model, batches):
        pairs = torch.from_numpy(scored.pairs).to(model.device)
        total = total.index_add(0, owners[pairs], of_tokens(scored))
    return total


def _scored(model: "PreTrainedModel", batches: "LikelihoodBatches") -> Iterator[Scored]:
    """Run each batch, and each pair that is in none in a forward pass of its own."""
    dtype = _dtype(model)
    for batch in batches.batches:
        logits = logits_of(model, batch, {"use_cache": False}).to(dtype)
        numbers = _numbers(batch.owners)
        yield Scored(logits, batch.scored_at, batch.scored_id, batch.owners, numbers)
    takes = signature(model.forward).parameters
    cache = {"use_cache": False} if "use_cache" in takes else {}
    for i in batches.unpacked:
        context, continuation = batches.pairs[i]
        ids = torch.tensor([[*context, *continuation[:-1]]], device=model.device)
        logits = model(input_ids=ids, **cache).logits[0, len(context) - 1 :].to(dtype)
        n = len(continuation)
        yield Scored(
            logits,
            torch.arange(n, device=model.device),
            torch.tensor(continuation, device=model.device),
            np.full(n, i),
            np.arange(n),
        )


def _numbers(owners: np.ndarray) -> np.ndarray:
    """Count tokens up within each owner, whose order is that of its positions."""
    seen: dict[int, int] = {}
    numbers = np.empty(len(owners), dtype=np.int64)
    for i, owner in enumerate(owners.tolist()):
        numbers[i] = seen.get(owner, 0)
        seen[owner] = int(numbers[i]) + 1
    return numbers


def _first_numbers(batches: "LikelihoodBatches") -> np.ndarray:
    """Count the tokens of a request before each pair; a rolling text has several."""
    seen = np.zeros(batches.n_requests, dtype=np.int64)
    first = np.zeros(len(batches.pairs), dtype=np.int64)
    for i, (owner, (_, continuation)) in enumerate(zip(batches.owners, batches.pairs, strict=True)):
        first[i] = seen[owner]
        seen[owner] += len(continuation)
    return first


def _dtype(model: "PreTrainedModel") -> torch.dtype:
    return torch.promote_types(model.dtype, torch.float32)
