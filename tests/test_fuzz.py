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
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "adapted.yaml").write_text(ADAPTED)
    return folder


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
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_one_line_or_nothing_bad(sound: Path, tmp_path: Path, what: str) -> None:
    name, recipe, damages = FILES[what]
    folder = shutil.copytree(sound, tmp_path / "family")
    intact = (folder / name).read_bytes()
    refused = 0
    for seed in range(N):
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
    for name in ("recipe", "adapted"):
        merge(sound / f"{name}.yaml", tmp_path / name)
        check_whole(tmp_path / name)
    save_file(load_file(sound / "models/one/model.safetensors"), tmp_path / "again.safetensors")
