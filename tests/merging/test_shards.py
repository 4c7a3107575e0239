"""Shards on disk: what safetensors reads back, what is refused, what a crash leaves."""

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from mergesearch.errors import InputError, MergesearchError
from mergesearch.exporting.checkpoint import write_checkpoint
from mergesearch.merging import Digest, Plan, merged_tensors, write_shards
from mergesearch.parents import Parents
from mergesearch.parents.mapping import read_header
from tests.merging import recipes
from tests.merging.conftest import Read

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Planned:
    """What a writer looks at in a job."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def plan_of(tensors: dict[str, Tensor]) -> Plan:
    jobs = [Planned(name, tuple(t.shape), t.dtype) for name, t in tensors.items()]
    return Plan(cast(Any, tuple(jobs)), {})


def random(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(shape, generator=generator).to(dtype) for n, shape in shapes.items()}


SHAPES: dict[str, tuple[int, ...]] = {
    "z.first": (5, 3),
    "a.second": (7,),
    "scalar": (),
    "empty": (0, 4),
    "last": (2, 3, 4),
}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def check_read_back(folder: Path, tensors: dict[str, Tensor]) -> None:
    found: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
        with safe_open(file, framework="pt") as handle:
            assert handle.metadata() == {"format": "pt"}
        assert (int.from_bytes(file.read_bytes()[:8], "little")) % 8 == 0
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_safetensors_reads_back_what_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = random(SHAPES, dtype)
    digest = write_shards(plan_of(tensors), tensors.items(), tmp_path, 10**9)
    assert files(tmp_path) == {"model.safetensors"}
    check_read_back(tmp_path, tensors)
    expected = Digest()
    for name, tensor in tensors.items():
        expected.add(name, tensor)
    assert digest == expected.hexdigest()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(DTYPES)), min_size=1)
)
@settings(max_examples=50, deadline=None)
def test_tensors_of_several_dtypes_are_aligned(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[int, int, torch.dtype]]
) -> None:
    folder = tmp_path_factory.mktemp("mixed")
    tensors = {f"t{i}": torch.full((n, m), i).to(d) for i, (n, m, d) in enumerate(kinds)}
    write_shards(plan_of(tensors), tensors.items(), folder, 10**9)
    check_read_back(folder, tensors)
    for name, entry in read_header(folder / "model.safetensors").items():
        assert entry.start % tensors[name].dtype.itemsize == 0


def test_a_tensor_that_is_not_contiguous_is_written_as_it_reads(tmp_path: Path) -> None:
    tensors = {"t": torch.arange(12.0).view(3, 4).T, "strided": torch.arange(9.0)[::2]}
    write_shards(plan_of(tensors), tensors.items(), tmp_path, 10**9)
    check_read_back(tmp_path, tensors)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, [1, 1, 1, 1]), (40, [1, 1, 1, 1]), (79, [1, 1, 1, 1]), (80, [2, 2]), (160, [4])],
)
def test_a_shard_is_closed_before_it_grows_beyond_the_limit(
    tmp_path: Path, limit: int, expected: list[int]
) -> None:
    tensors = random({f"t{i}": (10,) for i in range(4)}, torch.float32)  # of 40 bytes
    write_shards(plan_of(tensors), tensors.items(), tmp_path, limit)
    check_read_back(tmp_path, tensors)
    if len(expected) == 1:
        assert files(tmp_path) == {"model.safetensors"}
        return
    n = len(expected)
    names = [f"model-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
    assert files(tmp_path) == {*names, "model.safetensors.index.json"}
    assert [len(load_file(tmp_path / name)) for name in names] == expected
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 160}
    assert index["weight_map"] == {
        tensor: name for name in names for tensor in load_file(tmp_path / name)
    }


WRONG: dict[str, tuple[dict[str, Tensor], str]] = {
    "fewer": ({"a": torch.ones(2)}, "1 tensors fewer than planned, e.g. b"),
    "more": (
        {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)},
        "more tensors than planned: c after the last one",
    ),
    "another name": (
        {"a": torch.ones(2), "x": torch.ones(3)},
        r"got x \[3\] torch\.float32, planned none of this name",
    ),
    "another shape": (
        {"a": torch.ones(2), "b": torch.ones(4)},
        r"got b \[4\] torch\.float32, planned \[3\] torch\.float32",
    ),
    "another dtype": (
        {"a": torch.ones(2), "b": torch.ones(3).half()},
        r"got b \[3\] torch\.float16, planned \[3\] torch\.float32",
    ),
}


@pytest.mark.parametrize(("stream", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("limit", [1, 10**9], ids=["sharded", "one file"])
def test_what_was_not_planned_is_refused(
    tmp_path: Path, stream: dict[str, Tensor], message: str, limit: int
) -> None:
    plan = plan_of({"a": torch.ones(2), "b": torch.ones(3)})
    with pytest.raises(MergesearchError, match=message):
        write_shards(plan, stream.items(), tmp_path, limit)
    assert "model.safetensors.index.json" not in files(tmp_path)


def test_a_stream_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    tensors = random(SHAPES, torch.float32)

    def stream() -> Iterator[tuple[str, Tensor]]:
        yield "z.first", tensors["z.first"]
        assert files(tmp_path)  # it is being written
        raise KeyError("a parent")

    with pytest.raises(KeyError, match="a parent"):
        write_shards(plan_of(tensors), stream(), tmp_path, 10**9)
    assert not files(tmp_path)


def test_a_full_device_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: Any, /) -> int:
            if self.tell() + len(data) > 10_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data) or 0

    def opened(path: Path, mode: str) -> BinaryIO:
        return io.BufferedWriter(Full(path, mode)) if mode == "wb" else open(path, "rb")

    monkeypatch.setattr(Path, "open", opened)
    small = random({"t": (100,)}, torch.float32)
    write_shards(plan_of(small), small.items(), tmp_path, 10**9)
    check_read_back(tmp_path, small)
    for shape in [(8, 1000), (2600,)]:
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        large = random({"t": shape}, torch.float32)
        with pytest.raises(InputError, match=r"cannot be written to: No space left") as caught:
            write_shards(plan_of(large), large.items(), tmp_path, 10**9)
        assert "\n" not in str(caught.value)
        assert not files(tmp_path)


def test_a_folder_that_is_gone_is_said_in_one_line(tmp_path: Path) -> None:
    tensors = random(SHAPES, torch.float32)
    with pytest.raises(InputError, match=r"gone cannot be written to: No such file"):
        write_shards(plan_of(tensors), tensors.items(), tmp_path / "gone", 10**9)


KILLED = """
import os, signal, sys
from pathlib import Path
from mergesearch.exporting.checkpoint import write_checkpoint
from mergesearch.merging.shards import ShardWriter
from mergesearch.recipe import load_recipe

write, left = ShardWriter.write, int(sys.argv[3])

def killed(self, name, tensor):
    global left
    write(self, name, tensor)
    left -= 1
    if not left:
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

ShardWriter.write = killed
write_checkpoint(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), max_shard_bytes=8000)
"""


def test_a_killed_merge_leaves_nothing_under_its_name_and_a_second_one_succeeds(
    read: Read, models: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipes.LINEAR.format(p=f"{models}/"))
    out = tmp_path / "out" / "merged"
    done = subprocess.run([sys.executable, "-c", KILLED, recipe, out, "20"], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not out.exists()
    left = {path.name for path in out.parent.rglob("*.safetensors")}
    assert any(name.startswith("model-00001-of-") for name in left)  # it was under way
    merge = read(recipe.read_text())
    write_checkpoint(merge, out, max_shard_bytes=8000)
    assert {path.name for path in out.parent.iterdir()} == {"merged"}
    check_read_back(out, dict(merged_tensors(merge, Parents(merge.models))))
