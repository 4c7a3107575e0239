"""A checkpoint on disk: its configuration, and its tensors mapped and not loaded."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.parents.held import HeldTensors
from mergesearch.parents.layers import layer_of
from mergesearch.parents.mapping import BUFFER_DTYPES, DTYPES, Entry, MappedFile, check_fetched
from mergesearch.parents.sample import sample
from mergesearch.parents.wrappers import unwrapped

#: The output head, under the name that nearly all causal models give it.
HEAD = "lm_head.weight"
#: Endings of the names of input embeddings.
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
TOKENIZER = "tokenizer.json"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
#: Endings of what quantized checkpoints store as whole numbers.
_QUANTIZED = (
    *("weight", "qweight", "qzeros", "scales", "g_idx", "absmax", "quant_map", "weight_packed"),
    *("weight_shape", "SCB", "quant_state", "perm"),
)
#: What no quantization makes.
_WIDE = frozenset({"F64", "C64", "C128"})
#: Keys of a `generation_config.json` that `save_pretrained` writes without being asked.
_UNASKED = (
    *("_from_model_config", "output_attentions", "output_hidden_states"),
    *("transformers_version", "use_cache"),
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class TensorSpec:
    """Shape, dtype and file of a tensor that is not read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def n_bytes(self) -> int:
        """The size of the tensor as stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def float_bytes(self) -> int:
        """The size of the tensor in float32."""
        return math.prod(self.shape) * torch.float32.itemsize


@dataclass(frozen=True)
class Remade(TensorSpec):
    """A tensor that lies in no file, and is made of others as it is read."""

    #: The names of those that it is made of.
    sources: tuple[str, ...]
    #: Makes it, of those by their names.
    make: Callable[[Mapping[str, Tensor]], Tensor]


class Checkpoint:
    """A folder with `config.json` and safetensors weights, in one file or in shards.

    Opening it reads the headers only.

    Args:
        folder: the checkpoint's folder.
        held: its tensors, where they are in memory and the folder has all else.

    Raises:
        InputError: the folder holds no such checkpoint, or a file is missing, truncated, pickled
            or of a dtype that is not merged.
    """

    #: The output head's name, which all models of a study give it; see `ModelFiles`.
    head = HEAD

    def __init__(self, folder: Path, held: HeldTensors | None = None) -> None:
        self.folder = folder
        _check_described(folder)
        self.config = read_json(folder / "config.json")
        #: The file of each tensor, by the index of several.
        self._weight_map: Mapping[str, str] = {}
        self._files: Mapping[Path, MappedFile | HeldTensors] = (
            {file: MappedFile(file) for file in self._weight_files()}
            if held is None
            else {folder / SINGLE: held}
        )
        #: What is merged.
        self.specs: dict[str, TensorSpec] = {}
        #: Masks and positions, of whole numbers or truth values, which are copied.
        self.buffers: dict[str, TensorSpec] = {}
        #: The names in the files, of tensors that are known by another.
        self._stored: dict[str, str] = {}
        #: The tensors of which others are made, and that are known by these alone.
        self._apart: dict[str, TensorSpec] = {}
        self._read_specs()

    def read(self, name: str) -> Tensor:
        """Give a tensor as stored: a view of the file, on the CPU, not to be written to."""
        spec = self.specs.get(name) or self._apart.get(name) or self.buffers[name]
        if isinstance(spec, Remade):
            return spec.make({source: self.read(source) for source in spec.sources})
        return self._files[spec.file].tensor(self._stored.get(name, name))

    def release(self, name: str) -> None:
        """Let go of the memory that reading a tensor took; views of it stay valid."""
        spec = self.specs.get(name) or self._apart[name]
        if isinstance(spec, Remade):
            for source in spec.sources:
                self.release(source)
        else:
            self._files[spec.file].release(self._stored.get(name, name))

    def rename(self, names: Mapping[str, str]) -> None:
        """Know tensors by other names than those that they are stored under.

        Args:
            names: for each name that is known now the one that is known from now on.
        """
        stored = {name: self._stored.get(name, name) for name in (*self.specs, *self.buffers)}
        self._stored = {names.get(name, name): of for name, of in stored.items()}
        self.specs = {names.get(old, old): spec for old, spec in self.specs.items()}
        self.buffers = {names.get(old, old): spec for old, spec in self.buffers.items()}

    def remake(self, made: Mapping[str, Remade]) -> None:
        """Know tensors of which others are made by these others alone.

        Args:
            made: the others, by name.
        """
        sources = {source for of in made.values() for source in of.sources}
        self._apart = {name: self.specs[name] for name in sources}
        self.specs = {n: spec for n, spec in self.specs.items() if n not in sources} | dict(made)

    def untie(self) -> None:
        """Take the embeddings of a tied model for its output head as well, under its name."""
        if self.head not in self.specs and (embeddings := self.embeddings) is not None:
            self.specs[self.head] = self.specs[embeddings]
            self._stored[self.head] = self._stored.get(embeddings, embeddings)

    def release_all(self) -> None:
        """Let go of the memory that reading took so far."""
        for file in self._files.values():
            file.release_all()

    def sample(self) -> str:
        """Hash a few entries of each stored tensor, by which another training is told."""
        return sample(self._files.values())

    @property
    def base(self) -> "Checkpoint | None":
        """The checkpoint below, where an adapter is merged into it."""
        return None

    @property
    def tokenizer_folder(self) -> Path:
        """The folder that the tokenizer lies in."""
        return self.folder

    @cached_property
    def vocabulary(self) -> Mapping[str, int] | None:
        """Token to id, added tokens included, if the folder has a `tokenizer.json`."""
        path = self.tokenizer_folder / TOKENIZER
        if not path.exists():
            return None
        data = read_json(path)
        try:
            vocabulary = (data.get("model") or {}).get("vocab") or {}
            if isinstance(vocabulary, list):  # Unigram: pairs of token and score, in order of id
                vocabulary = {pair[0]: i for i, pair in enumerate(vocabulary)}
            found = {**vocabulary, **{t["content"]: t["id"] for t in self.added_tokens}}
        except (AttributeError, IndexError, KeyError, TypeError):
            found = {"": -1}
        if not all(type(i) is int and i >= 0 and isinstance(t, str) for t, i in found.items()):
            raise InputError(f"{path}: must map tokens to ids; download the tokenizer again")
        return found

    @property
    def added_tokens(self) -> list[dict[str, Any]]:
        """The tokens that `tokenizer.json` has beside its model's.

        Raises:
            InputError: they are no list of tokens.
        """
        path = self.tokenizer_folder / TOKENIZER
        entries = (read_json(path).get("added_tokens") or []) if path.exists() else []
        if isinstance(entries, list) and all(
            isinstance(entry, dict) and isinstance(entry.get("content"), str) for entry in entries
        ):
            return entries
        raise InputError(f"{path}: added_tokens must be a list of tokens with their content")

    @cached_property
    def generation_config(self) -> Mapping[str, Any] | None:
        """Its `generation_config.json`, if there is one.

        Raises:
            InputError: transformers cannot read it. What it does not, it passes over in silence.
        """
        path = self.folder / "generation_config.json"
        if not path.exists():
            return None
        settings = read_json(path)
        if all(key in _UNASKED or _is_token(key, value) for key, value in settings.items()):
            return settings  # without the seconds that transformers takes to import
        from transformers import GenerationConfig

        try:
            with quiet():
                GenerationConfig.from_dict(copy.deepcopy(settings))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path}: transformers cannot read it ({reason}); mend it, or take it away"
            ) from None
        return settings

    @cached_property
    def says_tied(self) -> bool:
        """True where the configuration, or its class, ties the head to the embeddings."""
        parts = [self.config, *(part for part in self.config.values() if isinstance(part, dict))]
        said = [part["tie_word_embeddings"] for part in parts if "tie_word_embeddings" in part]
        if said:
            return bool(said[0])
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        kind = self.config.get("model_type")
        return kind in CONFIG_MAPPING and bool(
            getattr(CONFIG_MAPPING[kind](), "tie_word_embeddings", False)
        )

    @cached_property
    def is_tied(self) -> bool:
        """True where the output head is the embeddings, as transformers loads the model.

        A stored head with values of its own is a head of its own, whatever the configuration says.
        """
        if not self.says_tied or self.head not in self.specs:
            return self.says_tied
        head, shape = self.read(self.head), self.specs[self.head].shape
        same = [n for n, of in self.specs.items() if n != self.head and of.shape == shape]
        return any(torch.equal(head, self.read(n)) for n in same if layer_of(n) is None)

    @property
    def embeddings(self) -> str | None:
        """The name of the input embeddings, outside of the layers."""
        names = (n for n in self.specs if n.endswith(EMBEDDINGS) and layer_of(n) is None)
        return next(names, None)

    def _weight_files(self) -> list[Path]:
        if (self.folder / SINGLE).exists():  # which transformers looks for first
            return [self.folder / SINGLE]
        if (self.folder / INDEX).exists():
            weight_map = read_json(self.folder / INDEX).get("weight_map", {})
            names = weight_map.values() if isinstance(weight_map, dict) else [None]
            if not all(isinstance(name, str) and _is_below(name) for name in names):
                raise InputError(
                    f"{self.folder / INDEX}: weight_map must map tensors to files of the folder"
                )
            self._weight_map = weight_map
            files = [self.folder / str(name) for name in sorted(set(weight_map.values()))]
            missing = [file.name for file in files if not file.exists()]
            if missing or not files:
                lost = ", ".join(missing) or "every shard"
                raise InputError(f"{self.folder}: {INDEX} names {lost}, which is missing")
            return files
        every = sorted(self.folder.glob("*.safetensors"))
        files = [file for file in every if not file.name.startswith("adapter_model")]
        if len(files) == 1:
            return files
        if every and not files:
            raise InputError(
                f"{self.folder}: no weights but an adapter's ({every[0].name}); name the base as "
                f"well, as BASE+{self.folder}"
            )
        if files:
            several = ", ".join(file.name for file in files[:3]) + (", ..." if files[3:] else "")
            raise InputError(
                f"{self.folder}: {len(files)} weight files ({several}) need a {INDEX}, which names "
                "the file of each tensor; download it too, or save the model with save_pretrained"
            )
        pickles = sorted(p.name for pattern in _PICKLES for p in self.folder.glob(pattern))
        if pickles:
            raise InputError(
                f"{self.folder}: only pickled weights ({pickles[0]}), which can run code when "
                "opened; convert them with transformers' save_pretrained"
            )
        raise InputError(f"{self.folder}: no *.safetensors weights in the folder")

    def _read_specs(self) -> None:
        for file, mapped in self._files.items():
            for name, entry in mapped.entries.items():
                if self.folder / self._weight_map.get(name, file.name) != file:
                    continue  # a copy that was left in another shard
                if entry.dtype in DTYPES:
                    self.specs[name] = TensorSpec(entry.shape, DTYPES[entry.dtype], file)
                else:
                    self.buffers[name] = self._buffer(file, name, entry)
        if lost := sorted(self._weight_map.keys() - self.specs.keys() - self.buffers.keys()):
            shard = self._weight_map[lost[0]]
            raise InputError(
                f"{self.folder}: {INDEX} names {lost[0]} in {shard}, which does not have it; "
                "download the model again"
            )
        own = unwrapped([*self.specs, *self.buffers])
        if any(name != stored for stored, name in own.items()):
            self.rename(own)

    def _buffer(self, file: Path, name: str, entry: Entry) -> TensorSpec:
        """Describe a tensor that is copied.

        Raises:
            InputError: it is a weight, of a dtype that is not merged.
        """
        quantized = "quantization_config" in self.config or name.endswith(_QUANTIZED)
        if entry.dtype in _WIDE or not (quantized or entry.dtype in BUFFER_DTYPES):
            raise InputError(
                f"{file}: {name} has dtype {entry.dtype}; {', '.join(DTYPES)} are merged, and "
                f"{', '.join(BUFFER_DTYPES)} copied: convert it to one of them, e.g. by "
                "save_pretrained of the model loaded with dtype=torch.float32"
            )
        if quantized:
            raise InputError(
                f"{file}: {name} has dtype {entry.dtype}; only {', '.join(DTYPES)} are merged: "
                "dequantize the model first"
            )
        return TensorSpec(entry.shape, BUFFER_DTYPES[entry.dtype], file)


def _check_described(folder: Path) -> None:
    """Refuse the folder of a training, whose checkpoints are in it.

    Raises:
        InputError: it is one.
    """
    if (folder / "config.json").exists():
        return
    if inside := sorted(file.parent.name for file in folder.glob("*/config.json")):
        names = ", ".join(inside[:3]) + (", ..." if inside[3:] else "")
        raise InputError(f"{folder}: no config.json in the folder; name a folder in it ({names})")


def _is_below(name: str) -> bool:
    """Tell a path to a file of a folder, or of a folder in it."""
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts


def _is_token(key: str, value: Any) -> bool:
    """Tell a setting for generation that names a token, or several ends."""
    tokens = value if isinstance(value, list) and key == "eos_token_id" else [value]
    return key.endswith("_token_id") and all(type(token) is int for token in tokens)


def read_json(path: Path) -> dict[str, Any]:
    """Read the object that a JSON file holds.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a mark
    except FileNotFoundError:
        raise InputError(f"{path.parent}: no {path.name} in the folder") from None
    except (OSError, ValueError) as error:
        check_fetched(path)
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return data
