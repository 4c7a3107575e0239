"""A file of frames, each whole or not there: what a kill tears is dropped.

The file is an eight-byte mark, then frames: the length and the CRC-32 of the payload, the CRC-32
of these eight bytes (little-endian, four bytes each), then the payload. The length has a checksum
of its own, so that a frame that ends beyond the file is one that a kill cut, and no other damage.
"""

import contextlib
import os
import struct
import zlib
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from mergesearch.errors import InputError

_MARK = b"MSFRAME1"
_HEAD = struct.Struct("<III")


@dataclass
class _Frame:
    """A frame on its way to the disk."""

    data: bytes
    done: bool = False
    error: InputError | None = None


class Frames:
    """Payloads that are appended and never changed, by any number of threads.

    Args:
        path: the file; made at the first payload.
        writable: False for reading a file that another process may write.
    """

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        self._path = path
        self._writable = writable
        self._ready = False  # behind a torn frame, one that is appended would be lost
        #: Of threads that share the file.
        self._waiting: list[_Frame] = []
        self._writing = Lock()

    def read(self) -> list[bytes]:
        """Every payload; a torn last frame is cut off where the file is writable.

        Raises:
            InputError: the file is no file of frames, or damaged.
        """
        payloads = self._payloads() if self._path.exists() else []
        self._ready = self._writable
        return payloads

    def append(self, payload: bytes) -> None:
        """Add a payload to a file that was read; it is on disk when this returns.

        Raises:
            InputError: the device is full, or the file cannot be written.
            RuntimeError: the file was not read before, or is open for reading only.
        """
        if not self._ready:
            raise RuntimeError("frames are appended to a writable file that was read before")
        head = struct.pack("<II", len(payload), zlib.crc32(payload))
        own = _Frame(head + struct.pack("<I", zlib.crc32(head)) + payload)
        self._waiting.append(own)
        with self._writing:
            if not own.done:  # by a thread that wrote what others waited with
                batch, self._waiting = self._waiting, []
                self._write(batch)
        if own.error is not None:
            raise own.error

    def _write(self, batch: "list[_Frame]") -> None:
        """Bring frames to disk together, which takes no longer than one."""
        data, error = b"".join(frame.data for frame in batch), None
        try:
            # unbuffered, or closing the file would write again what could not be written
            with self._path.open("ab", buffering=0) as file:
                start = file.tell()
                _write(file, data if start else _MARK + data, start)
        except OSError as failure:
            error = InputError(
                f"cannot write {self._path}: {failure.strerror}; make room and run the same "
                "command again to go on"
            )
        for frame in batch:
            frame.done, frame.error = True, error

    def _payloads(self) -> list[bytes]:
        payloads: list[bytes] = []
        with self._path.open("rb") as file:
            mark = file.read(len(_MARK))
            if not _MARK.startswith(mark):
                raise InputError(
                    f"{self._path} begins with no mark of frames; restore it from a copy, or give "
                    "--out another name"
                )
            end = len(mark) if mark == _MARK else 0
            while (payload := self._next(file)) is not None:
                payloads.append(payload)
                end = file.tell()
        if self._writable and end < self._path.stat().st_size:
            os.truncate(self._path, end)
        return payloads

    def _next(self, file: BinaryIO) -> bytes | None:
        """Read the next frame's payload; None where the file ends, in a frame or before."""
        start = file.tell()
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, checksum, of_head = _HEAD.unpack(head)
        sound = zlib.crc32(head[:8]) == of_head
        payload = file.read(length) if sound else b""
        if sound and len(payload) == length and zlib.crc32(payload) == checksum:
            return payload
        # zeros are what a power cut leaves of what was not written
        if not file.read().strip(b"\0"):
            return None
        raise InputError(
            f"{self._path} is damaged at byte {start}, and not by a kill; restore it from a copy, "
            "or give --out another name"
        )


def _write(file: FileIO, data: bytes, start: int) -> None:
    """Append to a file all of the data, or nothing."""
    try:
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(start)
        raise
