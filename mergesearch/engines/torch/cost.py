"""The cost of answering requests, known before a model is there."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mergesearch.engines.base import Cost
from mergesearch.engines.torch.limits import Limits
from mergesearch.engines.torch.packing import LEAST_SAVING, contexts_of, groups_of
from mergesearch.requests import Generation, LogLikelihood, Request, RollingLogLikelihood

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: lm-eval's own limit, where a task sets none.
_MAX_GEN_TOKS = 256


def cost(requests: Sequence[Request], tokenizer: "PreTrainedTokenizerBase", limits: Limits) -> Cost:
    """Estimate the cost of requests, at least one, on models of certain sizes."""
    scored = [request for request in requests if not isinstance(request, Generation)]
    prompts = [request for request in requests if isinstance(request, Generation)]
    costs = [
        *([_scored(scored, tokenizer, limits)] if scored else []),
        *([_generated(prompts, tokenizer, limits)] if prompts else []),
    ]
    return Cost(sum(c.n_tokens for c in costs), max(c.n_bytes for c in costs))


def backward_bytes(
    requests: Sequence[Request],
    tokenizer: "PreTrainedTokenizerBase",
    limits: Limits,
    *,
    checkpointing: bool,
    rank: int | None,
) -> int:
    """Estimate the bytes of a forward and backward pass over requests at its peak."""
    pairs = _pairs(requests, tokenizer)
    kept, step, n_batches = 0, 0, 0
    for group in groups_of(contexts_of(pairs, limits.columns_of_a_row), None):
        for rows, n_columns, _ in limits.cut(group):
            n_kept = sum(context.n_kept for row in rows for context in row)
            stays, passes = limits.backward_bytes(
                len(rows), n_columns, n_kept, checkpointing=checkpointing, rank=rank
            )
            kept, step, n_batches = kept + stays, max(step, passes), n_batches + 1
    if rank is not None:
        return kept + step
    # a weight's gradient waits for those of all batches
    waiting = limits.layers_gradient_bytes if n_batches > 1 else 0
    return kept + step + limits.largest_gradient_bytes + waiting


def _scored(
    requests: Sequence[LogLikelihood | RollingLogLikelihood],
    tokenizer: "PreTrainedTokenizerBase",
    limits: Limits,
) -> Cost:
    pairs = _pairs(requests, tokenizer)
    n_tokens, n_bytes = 0, 0
    for group in groups_of(contexts_of(pairs, limits.columns_of_a_row), LEAST_SAVING):
        rows, n_columns, n_kept = next(limits.cut(group))  # no later batch is wider
        n_tokens += group.n_prefix
        n_tokens += sum(context.n_columns(group.n_prefix) for context in group.contexts)
        batch = limits.batch_bytes(len(rows), n_columns, group.n_prefix, len(rows) * n_kept)
        n_bytes = max(n_bytes, batch)
    return Cost(n_tokens, n_bytes)


def _pairs(
    requests: Sequence[Request], tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[tuple[int, list[int], list[int]]]:
    """Encode requests: of each its index, and the ids of its context and continuation."""
    texts = [
        # a rolling text has no context
        ("", r.text) if isinstance(r, RollingLogLikelihood) else (r.context, r.continuation)
        for r in requests
        if not isinstance(r, Generation)
    ]
    contexts = _ids([context for context, _ in texts], tokenizer)
    continuations = _ids([continuation for _, continuation in texts], tokenizer)
    return zip(range(len(texts)), contexts, continuations, strict=True)


def _generated(
    requests: Sequence[Generation], tokenizer: "PreTrainedTokenizerBase", limits: Limits
) -> Cost:
    prompts = _ids([request.prompt for request in requests], tokenizer)
    written = [request.options.get("max_gen_toks", _MAX_GEN_TOKS) for request in requests]
    lengths = [len(prompt) + n for prompt, n in zip(prompts, written, strict=True)]
    pairs = ((i, prompt, [0]) for i, prompt in enumerate(prompts))
    groups = groups_of(contexts_of(pairs, 0), LEAST_SAVING)
    n_saved = sum((len(group.contexts) - 1) * group.n_prefix for group in groups)
    n_rows = min(len(requests), limits.prompts(max(lengths)))
    return Cost(sum(lengths) - n_saved, limits.prompts_bytes(n_rows, max(lengths)))


def _ids(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Token ids of texts, each encoded once; an empty one has the prefix token."""
    once = list(dict.fromkeys(texts))
    encoded = tokenizer(once, add_special_tokens=False)["input_ids"]
    known = {text: ids or [0] for text, ids in zip(once, encoded, strict=True)}
    return [known[text] for text in texts]
