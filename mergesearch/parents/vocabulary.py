"""One vocabulary for models that differ in theirs: rows go by token, not id."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from mergesearch.errors import InputError

#: What to do where vocabularies differ: refuse, keep the base's, or keep every model's tokens.
Policy = Literal["error", "base", "union"]
#: A model's index among the models, and a row of its embedding.
Row = tuple[int, int]

_REMEDY = "set tokenizer_source to base or union"


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokens and the rows of its embedding.

    Rows without a token are padding. Tokens past the last row are known to the tokenizer alone.
    """

    #: What errors call the model.
    name: str
    #: Token to id, the added ones included.
    tokens: Mapping[str, int]
    n_rows: int
    #: The tokens that the tokenizer has besides those of its own model.
    added: frozenset[str] = frozenset()
    #: Of a model with an adapter, the vocabulary of the model without it.
    before: "Vocabulary | None" = None

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Token to row, for the tokens that have one."""
        return {token: i for token, i in self.tokens.items() if i < self.n_rows}


@dataclass(frozen=True)
class RowMap:
    """The rows that a model's aligned embedding is made of."""

    #: The model's index among the models.
    model: int
    #: For each row of the result the model's own row, or -1 where it has none.
    own: tuple[int, ...]
    #: For each row that is not its own the rows of others, whose mean it is.
    lent: Mapping[int, tuple[Row, ...]]

    def sources(self, row: int) -> tuple[Row, ...]:
        """List the rows of which a row of the result is the mean."""
        return self.lent.get(row) or ((self.model, self.own[row]),)

    @cached_property
    def is_prefix(self) -> bool:
        """True where the result is the model's first rows as they stand."""
        return self.own == tuple(range(len(self.own)))

    @cached_property
    def has_means(self) -> bool:
        """True where a row of the result is a mean of several."""
        return any(len(rows) > 1 for rows in self.lent.values())

    @cached_property
    def lenders(self) -> tuple[int, ...]:
        """The other models that rows are taken from."""
        return tuple(sorted({model for rows in self.lent.values() for model, _ in rows}))


@dataclass(frozen=True)
class Unified:
    """The vocabulary of a merged model, and every model's way to it."""

    #: Token to id of the merged model's tokenizer.
    tokens: Mapping[str, int]
    n_rows: int
    #: One for each model.
    maps: tuple[RowMap, ...]
    #: The tokens that the first model's tokenizer lacks, in order of their new ids.
    new: tuple[str, ...] = ()
    #: The tokens with a row in some model and none in the merged one.
    dropped: tuple[str, ...] = ()
    #: How many rows of the first model, all without a token, the merged one does not have.
    n_padding_dropped: int = 0


def unify(models: Sequence[Vocabulary], policy: Policy, *, base_lends: bool = True) -> Unified:
    """Find the vocabulary that models are merged in.

    "error" is the one that all have; rows that an adapter added to it are dropped. "base" is the
    first model's, its padding included; tokens that only others have are dropped. "union" is the
    first model's tokens under their ids, then the others': first those that none of the tokenizers
    has as an added token, then the added ones, each in order of models and ids; it has no padding,
    as mergekit's has none.

    Args:
        models: at least one, the base of the vocabulary first.
        policy: "error", "base" or "union".
        base_lends: a model that lacks a token takes the first model's row of it, so that it differs
            in nothing there. Where the first model lacks it too, and without this, it takes the
            mean of the rows of those that have it.

    Raises:
        InputError: the policy is "error" and vocabularies differ, or no model has a row for a token
            of the union.
    """
    base, *others = models
    if policy == "error":
        for other in others:
            _check_same(base, other)
        maps = tuple(RowMap(m, tuple(range(base.n_rows)), {}) for m in range(len(models)))
        grown = [other.rows for other in others if other.n_rows > base.n_rows]
        dropped = dict.fromkeys(t for rows in grown for t in rows if t not in base.tokens)
        return Unified(base.tokens, base.n_rows, maps, dropped=tuple(dropped))
    new = _new_tokens(base, others) if policy == "union" else []
    first_new = max(base.tokens.values(), default=-1) + 1
    tokens = {**base.tokens, **{token: first_new + i for i, token in enumerate(new)}}
    n_rows = base.n_rows if policy == "base" else max(tokens.values(), default=-1) + 1
    token_of = {i: token for token, i in tokens.items()}
    defaults = [_default(models, token_of.get(i), i, base_lends) for i in range(n_rows)]
    maps = tuple(_row_map(models, m, token_of, defaults) for m in range(len(models)))
    kept = {token for token, i in tokens.items() if i < n_rows}
    dropped = dict.fromkeys(t for other in others for t in other.rows if t not in kept)
    n_base = sum(row >= 0 for row in maps[0].own)
    return Unified(tokens, n_rows, maps, tuple(new), tuple(dropped), base.n_rows - n_base)


def align(tensor: Tensor, rows: RowMap, read: Callable[[int], Tensor]) -> Tensor:
    """Put an embedding, output head or bias into the rows of the merged vocabulary.

    Args:
        tensor: the model's own, of shape (its rows, ...).
        rows: from `unify`, of this model.
        read: gives the same tensor of another model, of shape (its rows, ...), by its index.

    Returns:
        Shape (merged rows, ...). The tensor itself or a view of it where its rows stand as they
        are; else a copy, float32 if a row is a mean, and otherwise of the narrowest dtype that
        holds the rows of all the models they come from.
    """
    if rows.is_prefix:
        return tensor if len(tensor) == len(rows.own) else tensor[: len(rows.own)]
    others = {model: read(model) for model in rows.lenders}
    means = {i: lent for i, lent in rows.lent.items() if len(lent) > 1}
    dtype = torch.float32 if rows.has_means else tensor.dtype
    for other in others.values():
        dtype = torch.promote_types(dtype, other.dtype)
    own = torch.tensor(rows.own, device=tensor.device)
    result = tensor[own.clamp(min=0)].to(dtype)
    for model, other in others.items():
        lent = {i: r[0][1] for i, r in rows.lent.items() if len(r) == 1 and r[0][0] == model}
        result[list(lent)] = other[list(lent.values())].to(result)
    for i, sources in means.items():
        result[i] = torch.stack([others[m][row].to(result) for m, row in sources]).mean(0)
    return result


def _check_same(base: Vocabulary, other: Vocabulary) -> None:
    """Refuse another vocabulary; what an adapter has added to the base's is none.

    Raises:
        InputError: with the first token that differs.
    """
    if other.before is not None and other.n_rows >= other.before.n_rows:
        other = other.before
    if base.before is not None and base.n_rows == base.before.n_rows:
        base = base.before
    odd = set(base.tokens.items()) ^ set(other.tokens.items())
    if odd:
        token, index = min(odd, key=lambda item: (item[1], item[0]))
        raise InputError(
            f"all models must share one vocabulary: {len(base.tokens)} tokens in {base.name} and "
            f"{len(other.tokens)} in {other.name}; they differ first at token {token!r}, "
            f"id {index}; {_REMEDY}"
        )
    if base.n_rows != other.n_rows:
        raise InputError(
            f"all models must share one vocabulary: the embedding has {base.n_rows} rows in "
            f"{base.name} and {other.n_rows} in {other.name}; {_REMEDY}"
        )


def _new_tokens(base: Vocabulary, others: Sequence[Vocabulary]) -> list[str]:
    """List the tokens that the base lacks, in the order of mergekit."""
    added = frozenset(chain.from_iterable(model.added for model in (base, *others)))
    new = dict.fromkeys(
        token
        for other in others
        for token in sorted(other.rows, key=other.rows.__getitem__)
        if token not in base.tokens
    )
    return sorted(new, key=added.__contains__)  # a stable sort: the added ones last


def _default(
    models: Sequence[Vocabulary], token: str | None, i: int, base_lends: bool
) -> tuple[Row, ...]:
    """List the rows whose mean is row `i` of a model that has none of its own for it."""
    if token is None:
        owners = [(0, i)] if i < models[0].n_rows else []
    else:
        owners = [(m, model.rows[token]) for m, model in enumerate(models) if token in model.rows]
    if not owners:
        raise InputError(
            f"every token of the union needs a row: {models[0].name} has a token {token!r} of id "
            f"{i} and {models[0].n_rows} rows, and no other model has a row for it; "
            "set tokenizer_source to base"
        )
    return (owners[0],) if base_lends and owners[0][0] == 0 else tuple(owners)


def _row_map(
    models: Sequence[Vocabulary],
    m: int,
    token_of: Mapping[int, str],
    defaults: Sequence[tuple[Row, ...]],
) -> RowMap:
    base, model = models[0], models[m]
    # the padding of a model in which nothing differs is its own
    same = model.n_rows == base.n_rows and model.tokens == base.tokens
    own = tuple(
        model.rows.get(token_of[i], -1) if i in token_of else i if same else -1
        for i in range(len(defaults))
    )
    return RowMap(m, own, {i: defaults[i] for i, row in enumerate(own) if row < 0})
