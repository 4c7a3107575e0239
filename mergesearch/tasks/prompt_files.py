"""A user's own prompts, from a text file or JSON lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergesearch.config import read_text
from mergesearch.errors import InputError


@dataclass(frozen=True)
class Text:
    """A prompt, perhaps with what should follow it."""

    prompt: str
    continuation: str = ""


#: Endings of files of JSON lines.
_JSON_LINES = {".jsonl", ".ndjson"}
#: The ending of one document, whose lines are no prompts.
_JSON = ".json"
#: Keys of a JSON object that hold its prompt; the first there is counts.
_KEYS = ("prompt", "text")
#: Of what should follow it.
_CONTINUATION = "continuation"


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read a prompt a line; what should follow them is passed over.

    The arguments and errors are those of `read_texts`.
    """
    return tuple(text.prompt for text in read_texts(path))


def read_texts(path: Path) -> tuple[Text, ...]:
    """Read a prompt a line, blank lines aside.

    The spaces around a prompt are kept.

    Args:
        path: a text file; or, ending in `.jsonl`, of strings or of objects with the key `prompt`
            or `text`, and perhaps `continuation`.

    Raises:
        InputError: the file is missing, is one JSON document, is not UTF-8 text or holds no
            prompt, or a line of JSON is something else.
    """
    if path.suffix.lower() == _JSON:
        raise InputError(
            f"{path}: prompts are a text file or JSON lines, one a line, but {_JSON} is the ending "
            "of one JSON document; write a JSON string or object a line, and call it .jsonl"
        )
    text = read_text(path).removeprefix("\ufeff")
    if "\0" in text:
        raise InputError(f"cannot read {path}: it is binary, and prompts are UTF-8 text")
    # not at the other ends of lines that Unicode knows, which JSON has within strings
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if path.suffix.lower() in _JSON_LINES:
        texts = tuple(_from_json(path, lines))
    else:
        texts = tuple(Text(line) for line in lines if line.strip())
    if not texts:
        raise InputError(f"{path} holds no prompt; write one a line")
    return texts


def _from_json(path: Path, lines: list[str]) -> Iterator[Text]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        prompt, continuation = _prompt(line)
        if not (_is_text(prompt) and prompt.strip() and _is_text(continuation)):
            raise InputError(
                f"{path}, line {number}: must be a JSON string, or an object with a text under "
                f"{' or '.join(map(repr, _KEYS))}; got {line[:40]!r}"
            )
        yield Text(prompt, continuation)


def _is_text(value: Any) -> bool:
    """Tell text from all else, and from half of a character, which JSON may escape."""
    return isinstance(value, str) and not any(
        "\ud800" <= character <= "\udfff" for character in value
    )


def _prompt(line: str) -> tuple[Any, Any]:
    """Give what stands for a prompt and its continuation, of any type."""
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None, ""
    if isinstance(entry, dict):
        prompt = next((entry[key] for key in _KEYS if key in entry), None)
        return prompt, entry.get(_CONTINUATION, "")
    return entry, ""
