"""Continuations generated behind shared prefixes, by transformers' own `generate`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from lm_eval.models.utils import postprocess_generated_text
from torch import Tensor

from mergesearch.evaluation.encoding import Harness, Prompt
from mergesearch.evaluation.packing import Context, groups_of
from mergesearch.evaluation.prefix import Prefixes


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are continued together."""

    prefix: tuple[int, ...]
    #: Token ids, the prefix first, then padding, then the rest, (rows, columns).
    ids: Tensor
    #: 1 where there is a token, of the same shape.
    mask: Tensor
    #: Indices of the prompts.
    owners: tuple[int, ...]
    #: One of them, for the options that they share.
    prompt: Prompt


def prompt_batches(
    prompts: Sequence[Prompt],
    *,
    least_saving: int | None,
    rows_of: Callable[[int], int],
    pad_id: int,
    device: torch.device,
) -> list[PromptBatch]:
    """Prompts put into batches: of one kind, behind one prefix, of about one length.

    Args:
        prompts: in any order.
        least_saving: tokens that sharing a prefix must save; None shares none.
        rows_of: how many rows a batch may have, from the columns of one, to be generated included.
        pad_id: stands where there is no token.
        device: of the tensors.
    """
    kinds: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        kinds.setdefault(repr((prompt.until, prompt.max_gen_toks, prompt.options)), []).append(i)
    batches = []
    for members in kinds.values():
        contexts = [Context(prompts[i].tokens, [(i, [])]) for i in members]
        for group in groups_of(contexts, least_saving):
            ordered = sorted(group.contexts, key=lambda context: -len(context.tokens))
            while ordered:
                n_columns = len(ordered[0].tokens) + prompts[members[0]].max_gen_toks
                n_rows = rows_of(n_columns)
                batch, ordered = ordered[:n_rows], ordered[n_rows:]
                batches.append(_batch(group.prefix, batch, prompts, pad_id, device))
    return batches


def continuations(
    harness: Harness, prefixes: Prefixes, batch: PromptBatch
) -> Iterator[tuple[int, str]]:
    """The text that follows each prompt of a batch, with the prompt's index."""
    behind = {}
    if batch.prefix:
        cache = prefixes.of(batch.prefix).before(len(batch.ids), growing=True)
        behind = {"past_key_values": cache}
    with torch.no_grad():
        found = harness.generate(batch.ids, batch.mask, batch.prompt, **behind)
    for owner, tokens in zip(batch.owners, found, strict=True):
        text = harness.tok_decode(tokens)
        yield owner, postprocess_generated_text(text, list(batch.prompt.until), None)


def _batch(
    prefix: tuple[int, ...],
    contexts: Sequence[Context],
    prompts: Sequence[Prompt],
    pad_id: int,
    device: torch.device,
) -> PromptBatch:
    width, n_prefix = len(contexts[0].tokens), len(prefix)
    ids, mask = [], []
    for context in contexts:
        padding = width - len(context.tokens)
        ids.append([*prefix, *[pad_id] * padding, *context.tokens[n_prefix:]])
        mask.append([1] * n_prefix + [0] * padding + [1] * (len(context.tokens) - n_prefix))
    owners = tuple(context.continuations[0][0] for context in contexts)
    return PromptBatch(
        prefix=prefix,
        ids=torch.tensor(ids, device=device),
        mask=torch.tensor(mask, device=device),
        owners=owners,
        prompt=prompts[owners[0]],
    )
