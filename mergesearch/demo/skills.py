"""Three small skills with endless exercises over short strings of letters.

In every exercise the first choice is the answer of a fixed habit that needs no skill. A base model
that mostly answers by habit is weak at each skill, although it has seen them all; its experts have
each shed the habit for one of them.
"""

import zlib
from collections.abc import Callable
from random import Random
from typing import Literal, TypedDict

LETTERS = "abcdefghijklmnopqrstuvwxyz"

Split = Literal["train", "dev", "test"]


class Document(TypedDict):
    """One exercise: a prompt, answers to choose from, the index of the right one."""

    prompt: str
    choices: list[str]
    label: int


def halves(rng: Random) -> Document:
    """Ask which half of the alphabet most letters of a short string are from."""
    text = "".join(rng.choices(LETTERS, k=7))
    n_second = sum(letter >= "n" for letter in text)
    return {
        "prompt": f"sort {text} half:",
        "choices": ["first", "second"],
        "label": int(n_second > 3),
    }


def majority(rng: Random) -> Document:
    """Ask which of three letters stands most often in a short string."""
    while True:
        text = "".join(rng.choices("abc", k=9))
        counts = [text.count(letter) for letter in "abc"]
        if counts.count(max(counts)) == 1:
            break
    return {
        "prompt": f"count {text} most:",
        "choices": ["a", "b", "c"],
        "label": counts.index(max(counts)),
    }


def successor(rng: Random) -> Document:
    """Ask which letter of the alphabet follows the last one of a short string."""
    text = "".join(rng.choices(LETTERS, k=3))
    following = LETTERS[(LETTERS.index(text[-1]) + 1) % 26]
    others = rng.sample([letter for letter in LETTERS if letter not in (text[-1], following)], 2)
    answers = rng.sample([following, *others], 3)
    return {
        "prompt": f"after {text} comes:",
        "choices": [text[-1], *answers],
        "label": 1 + answers.index(following),
    }


#: Every skill by its name; each draws one document with the random numbers it is given.
SKILLS: dict[str, Callable[[Random], Document]] = {
    "halves": halves,
    "majority": majority,
    "successor": successor,
}


def split_of(document: Document) -> Split:
    """Return the one split that a document may be in, which its prompt decides."""
    bucket = zlib.crc32(document["prompt"].encode()) % 8
    return "dev" if bucket == 0 else "test" if bucket == 1 else "train"


def draw(skill: str, split: Split, rng: Random) -> Document:
    """Draw a document of a split; those of different splits never share a prompt."""
    while True:
        document = SKILLS[skill](rng)
        if split_of(document) == split:
            return document


def exam(skill: str, split: Split, n_documents: int, rng: Random) -> list[Document]:
    """Draw documents of a split, every prompt once."""
    by_prompt: dict[str, Document] = {}
    while len(by_prompt) < n_documents:
        document = draw(skill, split, rng)
        by_prompt.setdefault(document["prompt"], document)
    return list(by_prompt.values())
