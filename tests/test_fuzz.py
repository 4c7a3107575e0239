"""Damaged files: one line or success, and nothing is written where it fails.

`make fuzz` tries two thousand of each; a plain run of the tests some of them.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mergesearch import merge
from mergesearch.errors import MergesearchError
from tests import tiny

N = int(os.environ.get("FUZZ", "60"))
RECIPE = """\
merge_method: task_arithmetic
base_model: models/base
parameters: {weight: [{filter: mlp, value: [0.2, 0.6]}, {value: 0.4}]}
slices:
- sources:
  - {model: models/base, layer_range: [0, 2]}
  - {model: models/one, layer_range: [0, 2]}
  - {model: models/two, layer_range: [0, 2], parameters: {weight: 0.5}}
dtype: float32
tokenizer_source: union
"""
ADAPTED = """\
merge_method: linear
parameters: {weight: 1}
models: [{model: models/base}, {model: models/base+adapter}]
"""
STACKED = """\
merge_method: passthrough
slices:
- sources: [{{model: {0}-one, layer_range: [0, 2]}}]
- sources: [{{model: {0}-two, layer_range: [1, 2]}}]
"""
#: Values that nobody expects where they are put.
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 1e308, "", "x", "../..", "\x00", [], [[]], {}, {"a": 1}),
    *(["F32"], "F32", "I8", [0, 0], [-1, 4], [2**40], "model-00009-of-00002.safetensors"),
)
Damage = Callable[[bytes, random.Random], bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family, one of it in shards, and an adapter."""
    folder = tmp_path_factory.mktemp("sound")
    changes: dict[str, Any] = {"num_hidden_layers": 2}
    base = tiny.llama(folder / "models" / "base", 0, **changes)
    tiny.llama(folder / "models" / "one", 1, base=base, **changes)
    tiny.llama(folder / "models" / "two", 2, base=base, max_shard_size="10KB", **changes)
    tiny.adapter(folder / "adapter", base, 3)
    for seed, name in enumerate(("one", "two")):
        _make_others(folder / "models", seed, name)
    (folder / "eyes.yaml").write_text(STACKED.format("models/eyes"))
    (folder / "experts.yaml").write_text(STACKED.format("models/experts"))
    named = RECIPE.replace("tokenizer_source: union", "tokenizer_source: models/two")
    (folder / "named.yaml").write_text(named)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "adapted.yaml").write_text(ADAPTED)
    return folder


def _make_others(models: Path, seed: int, name: str) -> None:
    """Write a model with a tower beside the language model, and a mixture of experts."""
    sizes: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    text = {**sizes, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 64}
    eyes = transformers.Gemma3Config(
        text_config={**text, "sliding_window": 16, "max_position_embeddings": 64},
        vision_config={**sizes, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4,
        image_token_index=40, boi_token_index=41, eoi_token_index=42,
    )  # fmt: skip
    experts = transformers.Qwen3MoeConfig(
        **text, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for kind, model in (
            ("eyes", transformers.Gemma3ForConditionalGeneration(eyes)),
            ("experts", transformers.Qwen3MoeForCausalLM(experts)),
        ):
            model.save_pretrained(models / f"{kind}-{name}")
            tiny.tokenizer().save_pretrained(models / f"{kind}-{name}")


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Change, drop or repeat a few bytes."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(4):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                del out[at : at + chance.randint(1, 40)]
            case 2:
                out[at:at] = out[at : at + chance.randint(1, 40)]
            case _:
                out[at:at] = chance.randbytes(chance.randint(1, 4))
        out = out or bytearray(b" ")
    return bytes(out)


def changed(data: bytes, chance: random.Random) -> bytes:
    """Put odd values into JSON, or drop or rename a key."""
    tree = json.loads(data)
    places = list(_places(tree))
    for holder, key in chance.sample(places, min(len(places), chance.randint(1, 3))):
        match chance.randrange(4):
            case 0 if isinstance(holder, dict):
                holder.pop(key, None)
            case 1 if isinstance(holder, dict) and key in holder:
                holder[f"{key}x"] = holder.pop(key)
            case _:
                holder[key] = chance.choice(_ODD)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def header(data: bytes, chance: random.Random) -> bytes:
    """Damage a safetensors file before its weights."""
    length = int.from_bytes(data[:8], "little")
    damage = chance.choice((flipped, changed))
    text = damage(data[8 : 8 + length], chance)
    size = len(text) if chance.random() < 0.9 else chance.randrange(2**16)
    return size.to_bytes(8, "little") + text + data[8 + length :]


FILES: dict[str, tuple[str, str, tuple[Damage, ...]]] = {
    "a recipe": ("recipe.yaml", "recipe.yaml", (flipped,)),
    "a safetensors header": ("models/one/model.safetensors", "recipe.yaml", (header,)),
    "an index": (
        "models/two/model.safetensors.index.json", "recipe.yaml", (flipped, changed, changed)
    ),
    "a config": ("models/base/config.json", "recipe.yaml", (flipped, changed, changed)),
    "an adapter's config": (
        "adapter/adapter_config.json", "adapted.yaml", (flipped, changed, changed)
    ),
    "a tokenizer": ("models/two/tokenizer.json", "recipe.yaml", (flipped, changed, changed)),
    "a generation config": (
        "models/base/generation_config.json", "recipe.yaml", (flipped, changed, changed)
    ),
    "settings of a tokenizer": (
        "models/two/tokenizer_config.json", "named.yaml", (flipped, changed, changed)
    ),
    "a stack of a model with a tower": (
        "models/eyes-one/config.json", "eyes.yaml", (flipped, changed, changed)
    ),
    "a stack of a mixture": (
        "models/experts-one/config.json", "experts.yaml", (flipped, changed, changed)
    ),
    "the second of a stack": (
        "models/eyes-two/config.json", "eyes.yaml", (flipped, changed, changed)
    ),
}  # fmt: skip


#: Tokenizers and classes take longer to make: that many times fewer of them are tried.
_FEWER = {
    "settings of a tokenizer": 6,
    "a stack of a model with a tower": 6,
    "a stack of a mixture": 6,
    "the second of a stack": 6,
}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_one_line_or_nothing_bad(sound: Path, tmp_path: Path, what: str) -> None:
    name, recipe, damages = FILES[what]
    folder = shutil.copytree(sound, tmp_path / "family")
    intact = (folder / name).read_bytes()
    refused = 0
    for seed in range(max(N // _FEWER.get(what, 1), 1)):
        chance = random.Random(f"{what} {seed}")
        data = chance.choice(damages)(intact, chance)
        (folder / name).unlink()  # never written in place: the file may be mapped still
        (folder / name).write_bytes(data)
        out = tmp_path / "out"
        try:
            merge(folder / recipe, out)
        except MergesearchError as error:
            refused += 1
            assert "\n" not in str(error), (seed, str(error))
            assert not out.exists(), seed
            assert not list(tmp_path.glob(".*")), seed
        except BaseException as error:
            error.add_note(f"{what}, seed {seed}: {data[:300]!r}")
            raise
        else:
            check_whole(out)
            shutil.rmtree(out)
    assert refused > 0  # and the damage does reach what is read


def check_whole(out: Path) -> None:
    """Hold a written checkpoint to what every one has."""
    assert {"config.json", "mergekit_config.yml"} <= {file.name for file in out.iterdir()}
    for file in out.glob("*.safetensors"):
        assert load_file(file)


def test_the_sound_family_merges(sound: Path, tmp_path: Path) -> None:
    for name in ("recipe", "adapted", "eyes", "experts"):
        merge(sound / f"{name}.yaml", tmp_path / name)
        check_whole(tmp_path / name)
    save_file(load_file(sound / "models/one/model.safetensors"), tmp_path / "again.safetensors")
