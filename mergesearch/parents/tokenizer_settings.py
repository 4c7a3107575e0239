"""The settings of a tokenizer: what it has beside a vocabulary."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.parents.tokenizer import load_tokenizer

#: Models that have the same files have the same tokenizer.
_FILES = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*"),
)
_SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("special", "single_word", "lstrip", "rstrip")


@dataclass(frozen=True)
class TokenizerSettings:
    """The special tokens, templates and added tokens of a tokenizer."""

    #: Special tokens, templates, and what is put around a text.
    settings: Mapping[str, Any]
    #: The added tokens, and how each is found in a text.
    added: Mapping[str, str]
    words: Set[str]

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """Load a folder's tokenizer; None where there is none."""
        try:
            with quiet():
                tokenizer = load_tokenizer(folder)
        except InputError:
            return None  # of the first model it is said where one is needed
        templates = tokenizer.chat_template
        named = templates if isinstance(templates, dict) else {"": templates}
        special = set(tokenizer.all_special_ids)
        around = [i for i in tokenizer("a")["input_ids"] if i in special]
        settings = {name: getattr(tokenizer, name, None) for name in _SPECIAL} | {
            "tokens around a text": " ".join(tokenizer.convert_ids_to_tokens(around)) or None,
            **{f"chat_template {name}".strip(): text for name, text in named.items()},
        }
        added = {
            str(token): " ".join(flag for flag in _FLAGS if getattr(token, flag)) or "plain"
            for token in tokenizer.added_tokens_decoder.values()
        }
        return cls(settings, added, tokenizer.get_vocab().keys())


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Hash the files that a tokenizer is made of."""
    files = (file for pattern in _FILES for file in sorted(folder.glob(pattern)))
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).digest() for f in files}
