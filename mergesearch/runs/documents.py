"""Every candidate's score on every document of a run, in one compact file.

A frame is a block of one candidate's documents of one task, as two lines of compressed JSON: the
hashes of the candidate's tensors and of the task, then ids (the first, and the step to each next
one), values, margins and, where texts are written, the shares of them that were cut. 200 accuracies
with their margins take 5.0 bytes a document as one block, and 8.2 as five.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from mergesearch.runs.frames import Frames
from mergesearch.scores import DocumentScore

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask

_FILE = "documents.bin"

#: The hash of a model's tensors, and of a task.
Key = tuple[str, str]

#: Keys whose documents are kept as objects: a few of each candidate that is scored at a time.
_N_RECENT = 128


class Documents:
    """The scores of a run's documents, by the hashes of a model's tensors and a task.

    A margin is kept to six significant digits, a value as it is.

    Args:
        folder: the run's folder.
        writable: False for reading a run that another process may hold.

    Raises:
        InputError: the file is damaged.
    """

    def __init__(self, folder: Path, *, writable: bool = True) -> None:
        #: Held for each look-up and write: threads of one process share a run.
        self._lock = RLock()
        self._frames = Frames(folder / _FILE, writable=writable)
        #: Payloads as they are on disk: few of many documents are ever asked for.
        self._blocks: dict[Key, list[bytes]] = {}
        self._recent: dict[Key, dict[int, DocumentScore]] = {}
        #: Documents added since the run was opened.
        self.n_added = 0
        for payload in self._frames.read():
            self._blocks.setdefault(_key(payload), []).append(payload)

    def known(self, digest: str, fingerprint: str) -> Mapping[int, DocumentScore]:
        """Look up the documents of a task that a model was scored on, by id."""
        key = digest, fingerprint
        with self._lock:
            if key not in self._recent:
                if len(self._recent) == _N_RECENT:
                    del self._recent[next(iter(self._recent))]
                blocks = self._blocks.get(key, ())
                self._recent[key] = {i: score for block in blocks for i, score in _unpack(block)}
            return self._recent[key]

    def add(self, digest: str, fingerprint: str, documents: Mapping[int, DocumentScore]) -> None:
        """Keep what a model scored on some documents; on disk when this returns.

        Raises:
            InputError: the device is full, or the file cannot be written.
        """
        key = digest, fingerprint
        kept = {i: _as_kept(documents[i]) for i in sorted(documents)}
        payload = _pack(key, kept)
        self._frames.append(payload)
        with self._lock:
            self._blocks.setdefault(key, []).append(payload)
            if key in self._recent:  # as whoever reads the file has them
                self._recent[key] = {**self._recent[key], **kept}
            self.n_added += len(documents)

    def of(self, digest: str) -> "DocumentsOf":
        """Return one model's scores, as an evaluator asks for them."""
        return DocumentsOf(self, digest)


class DocumentsOf:
    """One model's scores of documents: a `DocumentStore`."""

    def __init__(self, documents: Documents, digest: str) -> None:
        self._documents = documents
        self._digest = digest

    def known(self, task: "BuiltTask") -> Mapping[int, DocumentScore]:
        """Look up the documents of a task that were scored before, by id."""
        return self._documents.known(self._digest, task.id.fingerprint)

    def add(self, task: "BuiltTask", documents: Mapping[int, DocumentScore]) -> None:
        """Keep newly scored documents; they are safe when this returns.

        Raises:
            InputError: the device is full, or the file cannot be written.
        """
        self._documents.add(self._digest, task.id.fingerprint, documents)


def _pack(key: Key, documents: Mapping[int, DocumentScore]) -> bytes:
    scores = documents.values()
    columns = [
        [b - a for a, b in pairwise([0, *documents])],
        [_short(score.value) for score in scores],
        [score.margin for score in scores],
    ]
    if any(score.cut is not None for score in scores):
        columns.append([_short(score.cut) for score in scores])
    return zlib.compress(_line(key) + b"\n" + _line(columns), 9)


def _key(payload: bytes) -> Key:
    digest, fingerprint = json.loads(zlib.decompress(payload).partition(b"\n")[0])
    return digest, fingerprint


def _unpack(payload: bytes) -> list[tuple[int, DocumentScore]]:
    columns = json.loads(zlib.decompress(payload).partition(b"\n")[2])
    steps, values, margins = columns[:3]
    cuts = columns[3] if len(columns) > 3 else [None] * len(values)
    scores = (
        DocumentScore(_number(value), margin, _number(cut))
        for value, margin, cut in zip(values, margins, cuts, strict=True)
    )
    return list(zip(accumulate(steps), scores, strict=True))


def _line(thing: Sequence[Any]) -> bytes:
    return json.dumps(thing, separators=(",", ":")).encode()


def _short(value: Any) -> Any:
    """Right and wrong without a decimal point."""
    return int(value) if value in (0.0, 1.0) else value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


def _as_kept(score: DocumentScore) -> DocumentScore:
    """Make of a score what the file gives again."""
    value = score.value
    if value is not None:
        value = float(value) if isinstance(value, int | float) else json.loads(json.dumps(value))
    margin = None if score.margin is None else float(f"{score.margin:.6g}")
    return DocumentScore(value, margin, _number(score.cut))
