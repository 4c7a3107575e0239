"""The texts that statistics are computed from: written down, and as tokens."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.files import write_whole
from mergesearch.tasks.prompt_files import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Texts = tuple[Text, ...]

#: Tokens of a text that are read, its last.
N_TOKENS = 512


@dataclass(frozen=True)
class Encoded:
    """A text as tokens."""

    #: int64 (1, tokens).
    ids: Tensor
    #: Tokens before those that the text's loss counts; at least 1.
    n_context: int


def lines_of(texts: Texts) -> str:
    """Write texts as JSON lines, which `read_texts` reads back."""
    return "".join(json.dumps(_entry(text), ensure_ascii=False) + "\n" for text in texts)


def hash_of(texts: Texts) -> str:
    """Hash texts by what they say."""
    return hashlib.sha256(lines_of(texts).encode()).hexdigest()[:16]


def write_texts(texts: Texts, folder: Path) -> Path:
    """Write texts into a file that is named by their hash, unless it is there.

    Raises:
        InputError: it cannot be written.
    """
    path = folder / f"{hash_of(texts)}.jsonl"
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        write_whole(path, lines_of(texts))
    return path


def encode(
    texts: Sequence[Text], tokenizer: "PreTrainedTokenizerBase", most: int = N_TOKENS
) -> list[Encoded]:
    """Encode texts; those without a token are left out.

    Args:
        texts: to encode.
        tokenizer: of the models.
        most: tokens of a text, at most.

    Raises:
        InputError: no text has a token.
    """
    encoded = []
    for text in texts:
        ids = tokenizer(text.prompt + text.continuation)["input_ids"]
        n = len(tokenizer(text.prompt)["input_ids"]) if text.continuation else 1
        n -= max(0, len(ids) - most)  # of what is cut off
        if ids := ids[-most:]:
            n_context = max(1, min(n, len(ids) - 1))
            encoded.append(Encoded(torch.tensor([ids], dtype=torch.int64), n_context))
    if not encoded:
        raise InputError(
            f"the tokenizer must read some token in the prompts, got none in all {len(texts)} of "
            "them; give other prompts"
        )
    return encoded


def _entry(text: Text) -> dict[str, str]:
    if not text.continuation:
        return {"prompt": text.prompt}
    return {"prompt": text.prompt, "continuation": text.continuation}
