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

    @property
    def identity(self) -> tuple[list[int], int]:
        """All that statistics follow from, as JSON."""
        return self.ids[0].tolist(), self.n_context


def lines_of(texts: Texts) -> str:
    """Write texts as JSON lines, which `read_texts` reads back."""
    return "".join(json.dumps(_entry(text), ensure_ascii=False) + "\n" for text in texts)


def hash_of(texts: Texts) -> str:
    """Hash texts by what they say."""
    return hashlib.sha256(lines_of(texts).encode()).hexdigest()[:16]


def file_name(texts: Texts) -> str:
    """Name the file of some texts by what they say."""
    return f"{hash_of(texts)}.jsonl"


def write_texts(texts: Texts, folder: Path) -> Path:
    """Write texts into a file that is named by their hash, unless it is there.

    Raises:
        InputError: it cannot be written.
    """
    path = folder / file_name(texts)
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
    """Encode texts; those of which the tokenizer reads nothing are left out.

    It reads something where a token is no special one, as that of unknown words is.

    Args:
        texts: to encode.
        tokenizer: of the models.
        most: tokens of a text, at most.

    Raises:
        InputError: it reads none of them.
    """
    special, encoded = {*tokenizer.all_special_ids}, []
    for text in texts:
        ids = tokenizer(text.prompt + text.continuation)["input_ids"]
        n = len(tokenizer(text.prompt)["input_ids"]) if text.continuation else 1
        n -= max(0, len(ids) - most)  # of what is cut off
        ids = ids[-most:]
        if not special.issuperset(ids):
            n_context = max(1, min(n, len(ids) - 1))
            encoded.append(Encoded(torch.tensor([ids], dtype=torch.int64), n_context))
    if not encoded:
        raise InputError(
            f"the tokenizer must know a token in the prompts, got none in all {len(texts)} of "
            "them; give other prompts"
        )
    return encoded


def _entry(text: Text) -> dict[str, str]:
    if not text.continuation:
        return {"prompt": text.prompt}
    return {"prompt": text.prompt, "continuation": text.continuation}
