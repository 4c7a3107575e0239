"""Statistics on disk: a folder of one model and kind, a file for each layer."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mergesearch.errors import CandidateError, InputError
from mergesearch.files import whole_folder
from mergesearch.recipe import ModelRef

#: By each tensor's name the file of its statistic, and the name that it is there under.
_INDEX = "index.json"

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
            InputError: a file is gone or damaged.
        """
        file = folder / _INDEX
        try:
            index = json.loads(file.read_bytes())
            places = {str(name): (str(of), str(kept)) for name, (of, kept) in index.items()}
            for of in sorted({of for of, _ in places.values()}):
                file = folder / of
                with safe_open(file, framework="pt"):
                    pass  # it says itself if its end is missing
        except (OSError, SafetensorError, AttributeError, TypeError, ValueError):
            raise _damaged(file) from None
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
    index: dict[str, tuple[str, str]] = {}

    def add(entries: list[Entry]) -> None:
        file = f"{next(numbers):04}.safetensors"
        if entries:
            index.update({name: (file, names[0]) for names, _ in entries for name in names})
            tensors = {names[0]: packed(t) if is_symmetric else t for names, t in entries}
            save_file(tensors, made / file)

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as made:
            yield add
            (made / _INDEX).write_text(json.dumps(index))
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot write {folder}: {reason}; make room and run the same command again to go on"
        ) from None


def check_finite(kind: str, model: ModelRef, entries: Iterable[Entry]) -> None:
    """Refuse statistics of a model that overflows.

    Raises:
        CandidateError: an entry is NaN or infinite.
    """
    for names, value in entries:
        if not bool(torch.isfinite(value).all()):
            raise CandidateError(
                f"{model} computes NaN or infinite values from its prompts (the {kind} of "
                f"{names[0]}); leave the model out, or give other prompts"
            )


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
