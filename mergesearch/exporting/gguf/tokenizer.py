"""Tokenizers as GGUF holds them: byte-level BPE, and sentencepiece's BPE."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.parents import read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

_FILE = "tokenizer.json"
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: llama.cpp's names of the ways to part a text before BPE, by what `tokenizer.json` says: the
#: regular expressions of splits, and whether digits are parted one by one.
_PARTINGS: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((), False): "gpt-2",
    ((), True): "smollm",
    ((rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",), False): "llama-bpe",
    ((rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}",), False): "qwen2",
}


class Vocabulary:
    """The tokenizer of a checkpoint, read from its `tokenizer.json`.

    Args:
        folder: the checkpoint's, or the tokenizer's.

    Raises:
        InputError: there is none, or it is of a kind that is not written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        data = read_json(folder / _FILE)
        self._model: dict[str, Any] = data["model"]
        self._added: list[dict[str, Any]] = data.get("added_tokens") or []
        if self._model.get("type") != "BPE":
            raise self._refused(f"its model is {self._model.get('type')}")
        #: False where the text is parted into bytes first.
        self.is_sentencepiece = bool(self._model.get("byte_fallback"))
        parts = [*_flat(data.get("pre_tokenizer")), *_flat(data.get("normalizer"))]
        self._has_space_prefix = any(
            part["type"] == "Prepend" or part.get("prepend_scheme", "never") != "never"
            for part in parts
        )
        #: llama.cpp's name of the way in which a text is parted before BPE.
        self.parting = "default" if self.is_sentencepiece else self._find_parting(parts)

    def write(self, writer: "GGUFWriter", n_rows: int) -> None:
        """Write tokens, their kinds, merges or scores, special tokens and chat template.

        Args:
            writer: of the file.
            n_rows: of the embeddings, which may be more than there are tokens.
        """
        from gguf import SpecialVocab

        tokens, kinds = zip(*self._tokens(n_rows), strict=True)
        writer.add_tokenizer_model("llama" if self.is_sentencepiece else "gpt2")
        writer.add_tokenizer_pre(self.parting)
        writer.add_token_list(tokens)
        if self.is_sentencepiece:
            writer.add_token_scores(self._scores(tokens))
            writer.add_add_space_prefix(self._has_space_prefix)
        writer.add_token_types(kinds)
        with quiet():  # what it warns of shows when the file is read back
            merges = not self.is_sentencepiece
            special = SpecialVocab(self._folder, load_merges=merges, n_vocab=n_rows)
            special.add_to_gguf(writer, quiet=True)

    def _tokens(self, n_rows: int) -> Iterator[tuple[str, int]]:
        """List tokens and their kinds in the order of ids, without gaps."""
        from gguf import TokenType

        names = {i: token for token, i in self._model["vocab"].items()}
        names |= {token["id"]: token["content"] for token in self._added}
        added = {token["id"]: bool(token.get("special")) for token in self._added}
        if max(names) >= n_rows:
            raise self._refused(f"it has token {max(names)}, and the embeddings {n_rows} rows")
        for i in range(n_rows):
            token, kind = names.get(i, f"[PAD{i}]"), TokenType.NORMAL
            if i not in names:
                kind = TokenType.UNUSED
            elif self.is_sentencepiece and token == self._model.get("unk_token"):
                kind = TokenType.UNKNOWN
            elif i in added:
                kind = TokenType.CONTROL if added[i] else TokenType.USER_DEFINED
            elif self.is_sentencepiece and _BYTE.fullmatch(token):
                kind = TokenType.BYTE
            yield token, int(kind)

    def _scores(self, tokens: Sequence[str]) -> list[float]:
        """Score tokens as sentencepiece does: of two merges, the higher one comes first."""
        ranks: dict[str, int] = {}
        for rank, merge in enumerate(self._model["merges"]):
            parts = merge.split(" ") if isinstance(merge, str) else merge
            ranks.setdefault("".join(parts), rank)
        return [-float(ranks.get(token, len(ranks))) for token in tokens]

    def _find_parting(self, parts: Sequence[Mapping[str, Any]]) -> str:
        """Name the way in which a text is parted before BPE."""
        patterns = [part["pattern"] for part in parts if part["type"] == "Split"]
        splits = tuple(pattern.get("Regex", "") for pattern in patterns)
        digits = any(part["type"] == "Digits" and part["individual_digits"] for part in parts)
        known = {"Split", "Digits", "ByteLevel", "NFC"}
        if strange := sorted({part["type"] for part in parts} - known):
            raise self._refused(f"it has a part {strange[0]}")
        if (splits, digits) not in _PARTINGS:
            raise self._refused("it parts texts in a way of its own")
        return _PARTINGS[splits, digits]

    def _refused(self, reason: str) -> InputError:
        return InputError(
            f"{self._folder / _FILE}: GGUF is written of sentencepiece's BPE, and of byte-level "
            f"BPE that parts texts as GPT-2, Llama 3, Qwen 2 or SmolLM do, but {reason}; export a "
            "checkpoint, and convert it with llama.cpp's convert_hf_to_gguf.py"
        )


def _flat(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """List the parts of a normalizer or pre-tokenizer, of a sequence each."""
    if part is None:
        return []
    inner = part.get("pretokenizers") or part.get("normalizers")
    return [part] if inner is None else [leaf for each in inner for leaf in _flat(each)]
