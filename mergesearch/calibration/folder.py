"""Statistics on disk: a folder of one model and kind, a file for each layer."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.files import whole_folder

#: The key of a file's metadata under which names stand that share a tensor.
_SHARES = "shares"

#: Names that a statistic is of, and the statistic.
Entry = tuple[tuple[str, ...], Tensor]


@dataclass(frozen=True)
class Kept:
    """The statistics of one model and kind; they are read as they are asked for."""

    folder: Path
    #: By the tensor's name its file, and the name that it is there under.
    places: dict[str, tuple[str, str]]
    #: Gram matrices, of which one triangle is kept.
    is_symmetric: bool

    @classmethod
    def open(cls, folder: Path, *, is_symmetric: bool) -> "Kept":
        """Read which tensors have a statistic.

        Raises:
            InputError: a file is damaged.
        """
        places = {}
        for file in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(file, framework="pt") as opened:
                    shares = json.loads(opened.metadata()[_SHARES])
            except (OSError, SafetensorError, KeyError, TypeError, ValueError):
                raise _damaged(file) from None
            for name, kept in shares.items():
                places[name] = file.name, kept
        return cls(folder, places, is_symmetric)

    def read(self, name: str) -> Tensor | None:
        """Read the statistic of a tensor, float32; None where it has none.

        Raises:
            InputError: the file is gone or damaged.
        """
        if name not in self.places:
            return None
        file, kept = self.places[name]
        try:
            with safe_open(self.folder / file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(kept)
        except (OSError, SafetensorError):
            raise _damaged(self.folder / file) from None
        return unpacked(tensor) if self.is_symmetric else tensor.float()


@contextmanager
def written(folder: Path, *, is_symmetric: bool) -> Iterator[Callable[[list[Entry]], None]]:
    """Write statistics layer by layer, into a folder that is whole or not there.

    Args:
        folder: to make.
        is_symmetric: they are symmetric matrices.

    Yields:
        What takes the next layer's: names, and the statistic that they share.

    Raises:
        InputError: the device is full, or the folder cannot be written.
    """
    numbers = count()

    def add(entries: list[Entry]) -> None:
        number = next(numbers)
        if entries:
            shares = {name: names[0] for names, _ in entries for name in names}
            tensors = {names[0]: packed(t) if is_symmetric else t for names, t in entries}
            metadata = {_SHARES: json.dumps(shares)}
            save_file(tensors, made / f"{number:04}.safetensors", metadata)

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as made:
            yield add
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot write {folder}: {reason}; make room and run the same command again to go on"
        ) from None


def packed(matrix: Tensor) -> Tensor:
    """Take the upper triangle of a symmetric matrix, row after row."""
    return torch.cat([row[i:] for i, row in enumerate(matrix)])


def unpacked(triangle: Tensor) -> Tensor:
    """Make the symmetric matrix of its upper triangle."""
    n = int(((8 * len(triangle) + 1) ** 0.5 - 1) / 2)
    matrix = torch.empty(n, n)
    start = 0
    for i in range(n):
        row = triangle[start : start + n - i]
        matrix[i, i:] = row
        matrix[i:, i] = row
        start += n - i
    return matrix


def _damaged(file: Path) -> InputError:
    return InputError(f"{file} is gone or damaged; remove its folder, and it is computed anew")
