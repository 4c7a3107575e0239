"""Continuations generated behind shared prefixes, by transformers' own `generate`.

The tokens of a prompt but the last run before it, those that prompts share once; the prompts of a
batch then go on together, whatever they share:

    a row of a part      prefix | padding | own tokens | last token
    its columns          the last ones of the batch's, before them nothing is seen
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from mergesearch.engines.torch.manner import Manner, manner_of
from mergesearch.engines.torch.packing import Context, Group, groups_of
from mergesearch.engines.torch.prefix import Prefixes, behind, cache_argument, growing

if TYPE_CHECKING:
    from mergesearch.engines.torch.hflm import Harness


@dataclass(frozen=True)
class Prompt:
    """A context to be continued."""

    tokens: list[int]
    #: Strings that end the continuation.
    until: tuple[str, ...]
    max_gen_toks: int
    #: Further arguments of `generate`, as the task gives them.
    options: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Rows of a batch that share a prefix."""

    prefix: tuple[int, ...]
    rows: slice
    #: Token ids between the prefix and the last one, padded on the left, (rows, columns).
    ids: Tensor
    positions: Tensor
    #: 1 where there is a token, the prefix included, (rows, prefix and columns).
    mask: Tensor


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are continued together."""

    #: What runs before; none where transformers is to make its own cache.
    parts: tuple[Part, ...]
    #: All token ids, with padding before and within them, (rows, columns).
    ids: Tensor
    #: 1 where there is a token, of the same shape.
    mask: Tensor
    #: Indices of the prompts.
    owners: tuple[int, ...]
    #: One of them, for the options that they share.
    prompt: Prompt
    manner: Manner


def prompt_batches(
    prompts: Sequence[Prompt],
    generation: GenerationConfig,
    *,
    least_saving: int | None,
    rows_of: Callable[[int], int],
    pad_id: int,
    device: torch.device,
) -> list[PromptBatch]:
    """Prompts put into batches: of one kind, and of about one length.

    Args:
        prompts: in any order.
        generation: the model's own settings, which not every batch is right for.
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
        first = prompts[members[0]]
        manner = manner_of(generation, first.options, first.max_gen_toks)
        saving = None if manner.alone else least_saving
        ordered = sorted(members, key=lambda i: -len(prompts[i].tokens))
        while ordered:
            longest = len(prompts[ordered[0]].tokens)
            n_rows = 1 if manner.alone else rows_of(longest + manner.n_new)
            if manner.even:
                n_rows = min(n_rows, sum(len(prompts[i].tokens) == longest for i in ordered))
            batch, ordered = ordered[:n_rows], ordered[n_rows:]
            contexts = [Context(prompts[i].tokens, [(i, [])]) for i in batch]
            groups = groups_of(contexts, saving)
            batches.append(_batch(groups, first, manner, saving is not None, pad_id, device))
    return batches


def continuations(
    harness: "Harness", prefixes: Prefixes, batch: PromptBatch
) -> Iterator[tuple[int, str]]:
    """Generate the text that follows each prompt of a batch, with the prompt's index."""
    with torch.no_grad():
        begun = _begun(harness, prefixes, batch) if batch.parts else None
        cache = {} if begun is None else {cache_argument(harness.model): begun}
        generated = harness.generate(batch.ids, batch.mask, batch.prompt, **cache)
    for owner, tokens in zip(batch.owners, generated, strict=True):
        yield owner, harness.text(tokens, batch.prompt)


def _batch(
    groups: Sequence[Group],
    prompt: Prompt,
    manner: Manner,
    shares: bool,
    pad_id: int,
    device: torch.device,
) -> PromptBatch:
    def tensor(rows: Sequence[Sequence[int]]) -> Tensor:
        numbers = torch.tensor(rows, dtype=torch.int64, device=device)
        return numbers.view(len(rows), len(rows[0]))

    parts: list[Part] = []
    ids: list[list[int]] = []
    mask: list[list[int]] = []
    for group in groups:
        n, width = group.n_prefix, max(len(context.tokens) for context in group.contexts)
        padded = [width - len(context.tokens) for context in group.contexts]
        owns = [context.tokens[n:] for context in group.contexts]
        seen = [[1] * n + [0] * k + [1] * len(own) for k, own in zip(padded, owns, strict=True)]
        spread = [[pad_id] * k + own for k, own in zip(padded, owns, strict=True)]
        parts.append(
            Part(
                prefix=group.prefix,
                rows=slice(len(ids), len(ids) + len(owns)),
                ids=tensor([row[:-1] for row in spread]),
                positions=tensor(
                    [
                        [0] * k + list(range(n, n + len(own) - 1))
                        for k, own in zip(padded, owns, strict=True)
                    ]
                ),
                mask=tensor([row[:-1] for row in seen]),
            )
        )
        # behind a prefix no model reads the padding, but a penalty of repetition does: it is shown
        # a token that the prompt has anyway
        ids += [
            [*group.prefix, *([own[-1] if n else pad_id] * k), *own]
            for k, own in zip(padded, owns, strict=True)
        ]
        mask += seen
    width = max(map(len, ids))
    return PromptBatch(
        parts=tuple(parts) if shares else (),
        ids=tensor([[pad_id] * (width - len(row)) + row for row in ids]),
        mask=tensor([[0] * (width - len(row)) + row for row in mask]),
        owners=tuple(c.continuations[0][0] for group in groups for c in group.contexts),
        prompt=prompt,
        manner=manner,
    )


def _begun(harness: "Harness", prefixes: Prefixes, batch: PromptBatch) -> DynamicCache:
    """Run a batch's rows into a cache, but for their last tokens."""
    n_rows, n_columns = batch.ids.shape
    n_layers = harness.config.get_text_config().num_hidden_layers
    cache = growing(n_layers, n_rows, n_columns + batch.manner.n_new)
    for part in batch.parts:
        n = part.rows.stop - part.rows.start
        if part.mask.shape[1] == 0:
            continue  # prompts of one token
        if part.prefix:
            own = prefixes.of(part.prefix).begin(n, part.mask.shape[1])
        else:
            own = growing(n_layers, n, part.mask.shape[1])
        if part.ids.shape[1]:
            harness.model(
                input_ids=part.ids,
                attention_mask=part.mask,
                position_ids=part.positions,
                logits_to_keep=1,
                **behind(harness.model, own),
            )
        for layer, begun in zip(cache.layers, own.layers, strict=True):
            layer.put(part.rows, n_columns - 1, begun.keys, begun.values)
    return cache
