"""Requests, which tasks make of a model, and the responses of engines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class LogLikelihood:
    """A question for the log-likelihood of a continuation behind a context."""

    kind: ClassVar[str] = "log-likelihood"
    #: May be empty.
    context: str
    continuation: str


@dataclass(frozen=True)
class RollingLogLikelihood:
    """A question for the log-likelihood of a text, which may be longer than a context."""

    kind: ClassVar[str] = "rolling log-likelihood"
    text: str


@dataclass(frozen=True)
class Generation:
    """A question for the text that a model writes behind a prompt."""

    kind: ClassVar[str] = "generation"
    prompt: str
    #: lm-eval's `until` and `max_gen_toks`, and arguments of transformers' `generate`.
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Written(str):
    """A text that a model wrote, and if only its token limit ended it.

    >>> from mergesearch.requests import Written
    >>> text = Written("so much", cut=True)
    >>> text == "so much", text.cut
    (True, True)
    """

    cut: bool

    def __new__(cls, text: str, *, cut: bool = False) -> "Written":
        """Take a text; `cut` where nothing but the token limit ended it."""
        written = super().__new__(cls, text)
        written.cut = cut
        return written


Request = LogLikelihood | RollingLogLikelihood | Generation

#: The log-likelihood of a continuation (nats), and whether greedy decoding would give it.
Likelihood = tuple[float, bool]

#: To each kind of request in turn: the likelihood, the log-likelihood (nats), the text. A text that
#: is no `Written` does not say if it was cut.
Response = Likelihood | float | str
