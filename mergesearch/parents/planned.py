"""A checkpoint whose weights are not here, known by what describes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.parents.architecture import stored_shapes
from mergesearch.parents.checkpoint import INDEX, SINGLE, Checkpoint, TensorSpec, read_json
from mergesearch.parents.held import HeldTensors
from mergesearch.parents.hub import locate
from mergesearch.parents.mapping import DTYPES
from mergesearch.parents.wrappers import unwrapped
from mergesearch.recipe import ModelPath

#: The part by which an index's total size may differ from the configuration's.
_TOLERANCE = 0.01


class PlannedCheckpoint(Checkpoint):
    """A checkpoint of which there is a configuration, and perhaps an index of weights.

    Names come from the index, or are those that transformers writes; shapes come from the class in
    transformers, on the meta device; all tensors have the configuration's dtype.

    Args:
        folder: the checkpoint's folder.

    Raises:
        InputError: transformers does not have the class, the configuration says no dtype that is
            merged, or the index is of another size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "config.json")
        self.buffers: dict[str, TensorSpec] = {}
        index = read_json(folder / INDEX) if (folder / INDEX).exists() else {}
        dtype, names = self._dtype(), index.get("weight_map")
        names = names and unwrapped(names).values()
        self.specs = {
            name: TensorSpec(shape, dtype, folder / SINGLE)
            for name, shape in stored_shapes(self.config, names).items()
        }
        #: The size that the index says, if it says one.
        self.total_size = (index.get("metadata") or {}).get("total_size")
        self._check_size()

    @property
    def n_bytes(self) -> int:
        """The size of all tensors."""
        return sum(spec.n_bytes for spec in self.specs.values())

    @property
    def is_tied(self) -> bool:
        """True where the configuration says so; only the weights would tell for certain."""
        return self.says_tied

    def read(self, name: str) -> Tensor:
        """Refuse to read a tensor.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self.folder}: the weights are not here, and {name} is one of them")

    def release(self, name: str) -> None:
        """Do nothing: nothing was read."""

    def release_all(self) -> None:
        """Do nothing: nothing was read."""

    def rename(self, names: Mapping[str, str]) -> None:
        """Know tensors by other names."""
        self.specs = {names.get(old, old): spec for old, spec in self.specs.items()}

    def untie(self) -> None:
        """Take the embeddings of a tied model for its output head as well."""
        self._stored: dict[str, str] = {}
        super().untie()

    def _dtype(self) -> torch.dtype:
        parts: list[Any] = [self.config, self.config.get("text_config") or {}]
        said = [part[key] for part in parts for key in ("dtype", "torch_dtype") if key in part]
        name = str(said[0]).removeprefix("torch.") if said else ""
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype) or dtype not in DTYPES.values():
            raise InputError(
                f"{self.folder}: config.json must say the dtype of weights that are not here, e.g. "
                f"bfloat16, got {name or None}"
            )
        return dtype

    def _check_size(self) -> None:
        size = self.total_size
        if size is not None and abs(self.n_bytes - size) > _TOLERANCE * size:
            raise InputError(
                f"{self.folder}: the size that {INDEX} says must be that of config.json's "
                f"parameters, got {size / 1e9:.2f} GB and {self.n_bytes / 1e9:.2f} GB; correct the "
                "dtype in config.json, or fetch the weights"
            )


def checkpoint_of(
    path: ModelPath, held: HeldTensors | None = None, *, weights: bool = True
) -> Checkpoint:
    """Open a checkpoint; without weights, whatever of it is here.

    Args:
        path: of the model.
        held: its tensors, where they are in memory.
        weights: its weights are needed.

    Raises:
        InputError: it cannot be found or opened.
    """
    folder = locate(path, weights=weights)
    if weights or _is_whole(folder):
        return Checkpoint(folder, held)
    return PlannedCheckpoint(folder)


def _is_whole(folder: Path) -> bool:
    """Tell if a folder has the files of its weights."""
    if not (folder / INDEX).exists():
        return any(folder.glob("*.safetensors"))
    shards = read_json(folder / INDEX).get("weight_map") or {}
    return all((folder / str(name)).exists() for name in {*shards.values()})
