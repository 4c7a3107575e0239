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
class Given:
    """A recipe's word about the row of one token."""

    #: Rows whose mean it is, none for zeros; None for what is taken without the recipe's word.
    rows: tuple[Row, ...] | None = None
    #: In models that have a row for the token, too.
    forced: bool = False


@dataclass(frozen=True)
class RowMap:
    """The rows that a model's aligned embedding is made of."""

    #: The model's index among the models.
    model: int
    #: For each row of the result the model's own row, or -1 where it has none.
    own: tuple[int, ...]
    #: For each row that is not its own the rows whose mean it is, none for zeros.
    lent: Mapping[int, tuple[Row, ...]]
    #: Rows behind those, each the mean of them all.
    n_padding: int = 0

    def sources(self, row: int) -> tuple[Row, ...]:
        """List the rows of which a row of the result is the mean."""
        return self.lent.get(row, ((self.model, self.own[row]),))

    @cached_property
    def is_prefix(self) -> bool:
        """True where the result is the model's first rows as they stand."""
        return self.own == tuple(range(len(self.own))) and not self.n_padding

    @cached_property
    def has_means(self) -> bool:
        """True where a row of the result is a mean of several."""
        return self.n_padding > 0 or any(len(rows) > 1 for rows in self.lent.values())

    @cached_property
    def lenders(self) -> tuple[int, ...]:
        """The models that rows are taken from for others."""
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
    #: How many rows, all without a token, the merged model lacks of whose vocabulary it has.
    n_padding_dropped: int = 0
    #: The tokens that the recipe alone names, in order of their ids.
    made: tuple[str, ...] = ()
    #: The tokens that no model has a row for, and the recipe says nothing of.
    unknown: tuple[str, ...] = ()


def unify(
    models: Sequence[Vocabulary],
    policy: Policy | Vocabulary,
    *,
    base_lends: bool = True,
    given: Mapping[str, Given] | None = None,
    multiple_of: int | None = None,
) -> Unified:
    """Find the vocabulary that models are merged in.

    "error" is the one that all have; rows that an adapter added to it are dropped. "base" is the
    first model's, its padding included; tokens that only others have are dropped. "union" is the
    first model's tokens under their ids, then the others': first those that none of the tokenizers
    has as an added token, then the added ones, each in order of models and ids; it has no padding,
    as mergekit's has none. A vocabulary is that one, of one of the models or of none, without
    padding.

    Args:
        models: at least one, the base first.
        policy: "error", "base", "union" or a vocabulary.
        base_lends: a model that lacks a token takes the first model's row of it, so that it differs
            in nothing there. Where the first model lacks it too, and without this, it takes the
            mean of the rows of those that have it.
        given: what the recipe says of tokens. Those that the vocabulary lacks come last in it.
        multiple_of: padding is a row of its own, the mean of all others, up to a multiple of this.

    Raises:
        InputError: the policy is "error" and vocabularies differ, or no model has a row for a token
            of the base or the union.
    """
    base, *others = models
    given = given or {}
    if policy == "error":
        for other in others:
            _check_same(base, other)
        maps = tuple(RowMap(m, tuple(range(base.n_rows)), {}) for m in range(len(models)))
        grown = [other.rows for other in others if other.n_rows > base.n_rows]
        dropped = dict.fromkeys(t for rows in grown for t in rows if t not in base.tokens)
        return Unified(base.tokens, base.n_rows, maps, dropped=tuple(dropped))
    of = policy if isinstance(policy, Vocabulary) else base
    new = _new_tokens(base, others) if policy == "union" else []
    made = [token for token in given if token not in of.tokens and token not in new]
    first_new = max(of.tokens.values(), default=-1) + 1
    tokens = {**of.tokens, **{token: first_new + i for i, token in enumerate([*new, *made])}}
    first_rows = range(max(tokens.values(), default=-1) + 1)
    if policy == "base":  # which the tokenizer may know more tokens than
        ids = [i for token, i in tokens.items() if token in base.rows or token in made]
        end = max(ids, default=-1) + 1
        first_rows = range(end if multiple_of else max(end, base.n_rows))
    token_of = {i: token for token, i in tokens.items()}
    rows = _Rows(models, of, token_of, given, base_lends)
    lent = [rows.default(i, or_zeros=of is policy) for i in first_rows]
    n_padding = -len(lent) % multiple_of if multiple_of else 0
    kept = {token_of[i] for i in first_rows if i in token_of}
    dropped = dict.fromkeys(t for model in models for t in model.rows if t not in kept)
    n_kept = sum(token_of.get(i) in of.rows or i not in token_of for i in first_rows[: of.n_rows])
    said = {token for token, row in given.items() if row.rows is not None}
    unknown = [token_of[i] for i, sources in enumerate(lent) if not sources and i in token_of]
    return Unified(
        tokens,
        len(lent) + n_padding,
        tuple(rows.map(m, lent, n_padding) for m in range(len(models))),
        new=tuple(new),
        dropped=tuple(dropped),
        n_padding_dropped=of.n_rows - n_kept,
        made=tuple(made),
        unknown=tuple(token for token in unknown if token not in said),
    )


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
    others = {m: tensor if m == rows.model else read(m) for m in rows.lenders}
    means = {i: lent for i, lent in rows.lent.items() if len(lent) > 1}
    dtype = torch.float32 if rows.has_means else tensor.dtype
    for other in others.values():
        dtype = torch.promote_types(dtype, other.dtype)
    own = torch.tensor(rows.own, device=tensor.device)
    result = tensor[own.clamp(min=0)].to(dtype)
    result[[i for i, lent in rows.lent.items() if not lent]] = 0
    for model, other in others.items():
        lent = {i: r[0][1] for i, r in rows.lent.items() if len(r) == 1 and r[0][0] == model}
        result[list(lent)] = other[list(lent.values())].to(result)
    for i, sources in means.items():
        result[i] = torch.stack([others[m][row].to(result) for m, row in sources]).mean(0)
    if rows.n_padding:
        padding = result.mean(0, keepdim=True).expand(rows.n_padding, *result.shape[1:])
        result = torch.cat([result, padding])
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


@dataclass(frozen=True)
class _Rows:
    """Finds the rows of a merged vocabulary in those of the models."""

    models: Sequence[Vocabulary]
    #: Whose vocabulary it is, but for new tokens.
    of: Vocabulary
    token_of: Mapping[int, str]
    given: Mapping[str, Given]
    base_lends: bool

    def default(self, i: int, or_zeros: bool) -> tuple[Row, ...]:
        """List the rows whose mean is row `i` of a model that has none of its own for it."""
        models, token = list(enumerate(self.models)), self.token_of.get(i)
        if token is None:
            owners = [(m, i) for m, model in models if model is self.of and i < model.n_rows]
        else:
            owners = [(m, model.rows[token]) for m, model in models if token in model.rows]
            if (given := self.given.get(token, Given()).rows) is not None:
                return given
        if not owners and not or_zeros:
            raise InputError(
                f"every token needs a row: {self.of.name} has a token {token!r} of id "
                f"{i} and {self.of.n_rows} rows, and no other model has a row for it; "
                "set tokenizer_source to base"
            )
        lends = self.base_lends and owners and owners[0][0] == 0
        return (owners[0],) if lends else tuple(owners)

    def map(self, m: int, lent: Sequence[tuple[Row, ...]], n_padding: int) -> RowMap:
        """Map the rows of one model, which takes what it lacks from `lent`."""
        model = self.models[m]
        # the padding of a model in which nothing differs is its own
        same = model.n_rows == self.of.n_rows and model.tokens == self.of.tokens
        forced = {token for token, row in self.given.items() if row.forced}

        def own(i: int) -> int:
            token = self.token_of.get(i)
            if token is None:
                return i if same and i < model.n_rows else -1
            return -1 if token in forced else model.rows.get(token, -1)

        rows = tuple(own(i) for i in range(len(lent)))
        return RowMap(m, rows, {i: lent[i] for i, row in enumerate(rows) if row < 0}, n_padding)
