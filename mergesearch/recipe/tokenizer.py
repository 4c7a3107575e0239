"""The tokenizer of a merged model: whose it is, and the rows of single tokens."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from mergesearch.config import Config
from mergesearch.recipe.reference import ModelRef

TokenizerSource = Literal["base", "union"]

#: How older configurations begin the name of a model whose tokenizer is taken.
_PREFIX = "model:"


def _unprefixed(value: Any) -> Any:
    return value.removeprefix(_PREFIX) if isinstance(value, str) else value


def _policy_or_model(value: Any) -> str:
    return "policy" if isinstance(value, str) and value in ("base", "union") else "model"


def _kind(value: Any) -> Any:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "model" if kind is None else kind


def _known_kind(value: Any) -> Any:
    if _kind(value) not in ("model", "zero", "model_token"):
        raise ValueError(f"kind must be zero or model_token, got {_kind(value)!r}")
    return value


#: Whose vocabulary: the base's, all models', or that of one model.
VocabularySource = Annotated[
    Annotated[TokenizerSource, Tag("policy")] | Annotated[ModelRef, Tag("model")],
    Discriminator(_policy_or_model),
    BeforeValidator(_unprefixed),
]


class ZeroRow(Config):
    """Zeros, for a token that no model knows."""

    kind: Literal["zero"]


class RowOfToken(Config):
    """The row that a model has for another token."""

    kind: Literal["model_token"]
    model: ModelRef
    token: str | None = None
    #: The row by its number, in place of `token`.
    token_id: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_of_both(self) -> "RowOfToken":
        if (self.token is None) == (self.token_id is None):
            raise ValueError("give either token or token_id, and one of them")
        return self


#: A model that has the token, zeros, or the row of another token.
RowSource = Annotated[
    Annotated[ModelRef, Tag("model")]
    | Annotated[ZeroRow, Tag("zero")]
    | Annotated[RowOfToken, Tag("model_token")],
    Discriminator(_kind),
    BeforeValidator(_known_kind),
]


class TokenRow(Config):
    """The row of one token, in models that lack the token or in all."""

    #: None takes the base's row, or else the mean of those of the models that have the token.
    source: RowSource | None = None
    #: Replace the rows of the models that have the token, too.
    force: bool = False


class TokenizerBlock(Config):
    """mergekit's `tokenizer`: whose tokenizer, rows of single tokens, and padding."""

    source: VocabularySource = "union"
    #: By token; one that the tokenizer lacks is added to it.
    tokens: Mapping[str, TokenRow] = Field(default_factory=dict)
    #: Rows that belong to no token, each the mean of all tokens', up to a multiple of this.
    pad_to_multiple_of: int | None = Field(default=None, ge=0)

    @property
    def is_plain(self) -> bool:
        """True where it says no more than the source."""
        return not self.tokens and not self.pad_to_multiple_of

    def __str__(self) -> str:
        return str(self.source) if self.is_plain else self.model_dump_json(exclude_defaults=True)

    def with_paths(self, change: Callable[[ModelRef], ModelRef]) -> "TokenizerBlock":
        """Replace every model reference by `change(reference)`."""

        def moved(source: Any) -> Any:
            if isinstance(source, RowOfToken):
                return source.model_copy(update={"model": change(source.model)})
            return change(source) if isinstance(source, ModelRef) else source

        tokens = {
            token: row.model_copy(update={"source": moved(row.source)})
            for token, row in self.tokens.items()
        }
        return self.model_copy(update={"source": moved(self.source), "tokens": tokens})
