"""The models that the benchmark merges: a random base and three relatives of it, on disk."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import tiny

PARENTS = ("one", "two", "three")
_SHARD_BYTES = 10**9
_SPREAD, _DELTA = 0.02, 0.002  # standard deviations of the base's entries and of the changes


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama with tied embeddings."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every weight."""
        hidden, inner = self.hidden_size, self.intermediate_size
        keys = hidden // self.num_attention_heads * self.num_key_value_heads
        yield "model.embed_tokens.weight", (self.vocab_size, hidden)
        yield "model.norm.weight", (hidden,)
        for layer in range(self.num_hidden_layers):
            for name, shape in {
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.k_proj": (keys, hidden),
                "self_attn.v_proj": (keys, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "mlp.gate_proj": (inner, hidden),
                "mlp.up_proj": (inner, hidden),
                "mlp.down_proj": (hidden, inner),
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
            }.items():
                yield f"model.layers.{layer}.{name}.weight", shape

    @property
    def n_entries(self) -> int:
        """How many numbers a model holds."""
        return sum(math.prod(shape) for _, shape in self.tensors())


SHAPES = {
    "1b": Shape(2048, 5632, 22, 32, 4, 65536),  # TinyLlama's layers
    "135m": Shape(576, 1536, 30, 9, 3, 49152),  # SmolLM2-135M
    "tiny": Shape(48, 64, 3, 3, 1, 32),
}


@dataclass(frozen=True)
class Family:
    """A base and its parents in one folder, all of one dtype."""

    folder: Path
    shape: Shape
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """The dtype's name."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def parents(self) -> dict[str, Path]:
        return {name: self.folder / name for name in PARENTS}


def make_family(folder: Path, size: str, dtype: torch.dtype) -> Family:
    """Write a family, or take it up where an earlier run left it, and read it once.

    Its files are then in the page cache, for us and for mergekit.
    """
    family = Family(folder / f"{size}-{str(dtype).removeprefix('torch.')}", SHAPES[size], dtype)
    for seed, path in enumerate([family.base, *family.parents.values()]):
        if not (path / "config.json").exists():
            _write_model(path, family, seed)
        for file in path.glob("*.safetensors"):
            _read(file)
    return family


def _write_model(folder: Path, family: Family, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    start = torch.Generator().manual_seed(0)
    change = torch.Generator().manual_seed(seed)
    shard: dict[str, Tensor] = {}
    shards: list[list[str]] = []

    def write() -> None:
        save_file(shard, folder / f"shard-{len(shards)}", {"format": "pt"})
        shards.append([*shard])
        shard.clear()

    for name, shape in family.shape.tensors():
        tensor = _SPREAD * torch.randn(shape, generator=start)
        if seed:
            tensor += _DELTA * torch.randn(shape, generator=change)
        shard[name] = tensor.to(family.dtype)
        if sum(part.nbytes for part in shard.values()) > _SHARD_BYTES:
            write()
    if shard:
        write()
    _name_shards(folder, shards, family.shape.n_entries * family.dtype.itemsize)
    tiny.tokenizer().save_pretrained(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": family.name,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        **asdict(family.shape),
    }
    os.sync()  # no write-back beside the measurements
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")  # last: it is whole


def _name_shards(folder: Path, shards: list[list[str]], total_size: int) -> None:
    """Give shards the names of transformers, and several an index."""
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        if len(shards) == 1:
            file = "model.safetensors"
        (folder / f"shard-{i}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _read(file: Path) -> None:
    with file.open("rb") as stream:
        while stream.read(1 << 24):
            pass
