"""The pages of the documentation, and what they show."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]

_BLOCK = re.compile(r"^( *)```(\w+)?([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INCLUDED = re.compile(r'^--8<-- "(.+?)"$', re.MULTILINE)


class Block(NamedTuple):
    """Something that a page shows in a fence."""

    language: str
    text: str
    #: The files that it is included from.
    included: tuple[str, ...]


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """What a page shows in these languages, in order."""
    for indent, language, _, text in _BLOCK.findall(page.read_text()):
        if language in languages:
            text = textwrap.dedent(text) if indent else text
            yield Block(language, text, tuple(_INCLUDED.findall(text)))


def commands(page: Path) -> Iterator[list[str]]:
    """The mergesearch commands that a page shows, without the name of the program."""
    for block in blocks(page, "sh"):
        for line in block.text.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["mergesearch"]:
                yield words[1:]


def name_of(page: Path) -> str:
    """A page's path from the root of the repository."""
    return str(page.relative_to(ROOT))
