"""Batches of requests, which stay the same from model to model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mergesearch.engines.torch.generation import PromptBatch, prompt_batches
from mergesearch.engines.torch.limits import Limits, longest_packed
from mergesearch.engines.torch.packing import (
    LEAST_SAVING,
    Batch,
    TokenPair,
    batch_of,
    contexts_of,
    groups_of,
)
from mergesearch.engines.torch.probing import FastPaths
from mergesearch.requests import Generation, LogLikelihood, RollingLogLikelihood

if TYPE_CHECKING:
    from mergesearch.engines.torch.hflm import Harness

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LikelihoodBatches:
    """Log-likelihood requests as batches."""

    n_requests: int
    #: A rolling text may be several pairs, one for each window.
    pairs: tuple[TokenPair, ...]
    #: Of each pair the index of its request, (pairs,).
    owners: np.ndarray
    #: Their own owners are indices of pairs.
    batches: tuple[Batch, ...]
    #: Indices of pairs that are in no batch, and go lm-eval's own way.
    unpacked: tuple[int, ...]


def likelihood_batches(
    requests: Sequence[LogLikelihood] | Sequence[RollingLogLikelihood],
    harness: "Harness",
    paths: FastPaths,
    limits: Limits,
) -> LikelihoodBatches:
    """Encode log-likelihood requests of one kind and pack them."""
    pairs, owners = harness.encode(requests)
    longest = longest_packed(harness) if paths.packs else 0
    fits = [len(context) + len(continuation) - 1 <= longest for context, continuation in pairs]
    unpacked = tuple(i for i, fit in enumerate(fits) if not fit)
    if paths.packs and unpacked:
        log.warning(
            "%d of %d requests are longer than the model's attention window (%d tokens), and take "
            "lm-eval's own, slower path",
            *(len(unpacked), len(pairs), longest),
        )
    numbered = ((i, *pair) for i, pair in enumerate(pairs) if fits[i])
    packed = contexts_of(numbered, limits.columns_of_a_row)
    batches: list[Batch] = []
    for group in groups_of(packed, LEAST_SAVING if paths.shares else None):
        for rows, _, _ in limits.cut(group):
            batches.append(batch_of(group.prefix, rows, harness.device))
    return LikelihoodBatches(len(requests), tuple(pairs), owners, tuple(batches), unpacked)


def generation_batches(
    requests: Sequence[Generation], harness: "Harness", paths: FastPaths, limits: Limits
) -> tuple[PromptBatch, ...]:
    """Encode requests to generate and put those of about one length together."""
    batches = prompt_batches(
        [harness.prompt(request) for request in requests],
        harness.model.generation_config,
        least_saving=LEAST_SAVING if paths.shares else None,
        rows_of=limits.prompts,
        pad_id=harness.tokenizer.pad_token_id,
        device=harness.device,
    )
    return tuple(batches)
