"""Safetensors files mapped into memory: tensors are views of their pages."""

import json
import math
import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mergesearch.errors import InputError

#: What is merged, by the names that safetensors uses.
DTYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
#: What is copied: masks and positions that old checkpoints store.
BUFFER_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I32": torch.int32,
    "I64": torch.int64,
}
_STORED = {**DTYPES, **BUFFER_DTYPES}
DTYPE_NAMES = {dtype: name for name, dtype in _STORED.items()}
#: Begins what stands for a file that was not fetched.
_LFS_POINTER = b"version https://git-lfs"
#: Where a page is missing, Linux maps those around it as well: since 6.18 all that it cached as
#: one, of up to this many bytes.
_AROUND = 2 * 1024**2


@dataclass(frozen=True)
class Entry:
    """The entry of a tensor in a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    #: Bytes from the start of the file.
    start: int
    end: int


class MappedFile:
    """A safetensors file whose tensors are views of one private mapping.

    Nothing is read at opening but the header. A page comes into memory when a view of it is
    read, and stays there until it is released. No view may be written to.

    Args:
        file: the file; it must not be changed in place while it is mapped.

    Raises:
        InputError: the file is truncated, or is no safetensors file.
    """

    def __init__(self, file: Path) -> None:
        self.entries = read_header(file)
        with file.open("rb") as opened:
            # Torch cannot say that a tensor is read-only. With copy on write, a write that should
            # not be would at least never reach the file.
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)

    def tensor(self, name: str) -> Tensor:
        """Give a tensor as stored: a view of the map on the CPU."""
        entry = self.entries[name]
        dtype, n_entries = _STORED[entry.dtype], math.prod(entry.shape)
        if n_entries == 0:
            return torch.empty(entry.shape, dtype=dtype)
        if entry.start % dtype.itemsize:  # the format does not rule it out, processors may
            n_bytes = entry.end - entry.start
            data = torch.frombuffer(self._map, dtype=torch.uint8, count=n_bytes, offset=entry.start)
            return data.clone().view(dtype).view(entry.shape)
        flat = torch.frombuffer(self._map, dtype=dtype, count=n_entries, offset=entry.start)
        return flat.view(entry.shape)

    def release(self, name: str) -> None:
        """Let go of the pages that a tensor lies on; read again, they come back."""
        entry = self.entries[name]
        self._drop(entry.start, entry.end)

    def release_all(self) -> None:
        """Let go of every page of the file."""
        self._drop(0, len(self._map))

    def _drop(self, start: int, end: int) -> None:
        # Neighbours' entries too: nobody has written to any page, so all that dropping one costs
        # is to map it again.
        start = max(0, start - _AROUND)
        start -= start % mmap.PAGESIZE
        end = min(end + _AROUND, len(self._map))
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


def check_fetched(file: Path) -> None:
    """Refuse what git LFS has in place of a file that was not fetched.

    Raises:
        InputError: it is that.
    """
    with suppress(OSError), file.open("rb") as opened:
        if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise InputError(f"{file}: a pointer of git LFS; fetch the file itself: git lfs pull")


def read_header(file: Path) -> dict[str, Entry]:
    """Read the header of a safetensors file, validated by safetensors.

    Raises:
        InputError: the file is truncated, or is no safetensors file.
    """
    try:
        with safe_open(file, framework="pt"):
            pass  # the header is sound, and its offsets cover the file to its end
    except (SafetensorError, OSError) as error:
        check_fetched(file)
        raise InputError(f"{file}: truncated, or not a safetensors file ({error})") from None
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    first = 8 + length  # offsets count from the end of the header
    return {
        name: Entry(
            entry["dtype"],
            tuple(entry["shape"]),
            first + entry["data_offsets"][0],
            first + entry["data_offsets"][1],
        )
        for name, entry in header.items()
    }
