"""Mapped files: read without a copy, never written to, and their pages let go of."""

import json
import mmap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergesearch.errors import InputError
from mergesearch.parents.mapping import MappedFile, read_header


def status(field: str) -> int:
    """A size in /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


proc = pytest.mark.skipif(
    not (Path("/proc/self/status").exists() and hasattr(mmap, "MADV_DONTNEED")),
    reason="needs Linux",
)

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.arange(5.0).bfloat16(),
    "c": torch.arange(4.0).half().view(1, 4),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 7),
    "empty and narrow": torch.empty(3, 0).half(),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "m.safetensors", metadata={"format": "pt"})
    return tmp_path / "m.safetensors"


def test_every_tensor_is_read_as_stored_before_and_after_its_release(file: Path) -> None:
    mapped = MappedFile(file)
    assert mapped.entries.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        tensor = mapped.tensor(name)
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
        for _ in range(2):
            assert torch.equal(tensor, expected)
            assert torch.equal(mapped.tensor(name), expected)
            mapped.release(name)
    mapped.release_all()
    assert torch.equal(mapped.tensor("a"), TENSORS["a"])


def test_a_tensor_is_no_copy_and_outlives_the_file(file: Path) -> None:
    mapped = MappedFile(file)
    one, two = mapped.tensor("a"), mapped.tensor("a")
    assert one.data_ptr() == two.data_ptr()
    del mapped, two
    file.unlink()
    assert torch.equal(one, TENSORS["a"])


def test_a_write_would_never_reach_the_file(file: Path) -> None:
    before = file.read_bytes()
    MappedFile(file).tensor("a").fill_(7)
    assert file.read_bytes() == before
    assert torch.equal(MappedFile(file).tensor("a"), TENSORS["a"])


def test_a_tensor_that_is_not_aligned_is_read(tmp_path: Path) -> None:
    header = {
        "odd": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "wide": {"dtype": "F32", "shape": [2], "data_offsets": [2, 10]},
    }
    text = json.dumps(header).encode()
    data = torch.tensor([1.5, -2.5]).numpy().tobytes()
    file = tmp_path / "m.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"\0\0" + data)
    wide = MappedFile(file).tensor("wide")
    assert torch.equal(wide, torch.tensor([1.5, -2.5]))
    assert wide.data_ptr() % 4 == 0


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_a_file_that_is_cut_is_refused(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputError, match=r"m\.safetensors: truncated, or not a safetensors file"):
        read_header(file)


@proc
def test_what_is_released_is_no_longer_resident(tmp_path: Path) -> None:
    n_bytes = 60_000_000
    file = tmp_path / "m.safetensors"
    save_file({f"t{i:02d}": torch.full((1_000, 750), float(i)) for i in range(20)}, file)
    mapped = MappedFile(file)
    float(mapped.tensor("t00").sum())  # what torch loads at the first use
    mapped.release_all()
    for release in (True, False):
        before = most = status("VmRSS")
        for i, name in enumerate(mapped.entries):
            assert float(mapped.tensor(name).mean()) == i
            most = max(most, status("VmRSS"))
            if release:
                mapped.release(name)
        growth = status("VmRSS") - before
        if release:  # one tensor at a time
            assert most - before < 8_000_000
            assert growth < 2_000_000
        else:
            assert growth > 0.8 * n_bytes
    mapped.release_all()
    assert status("VmRSS") - before < 2_000_000


@proc
def test_tensors_smaller_than_a_page_are_released_too(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    save_file({f"t{i:05d}": torch.ones(500) for i in range(5_000)}, file)
    mapped = MappedFile(file)
    names = list(mapped.entries)
    float(mapped.tensor(names[0]).sum())
    mapped.release_all()
    before = status("VmRSS")
    for name in names:
        mapped.tensor(name).sum()
        mapped.release(name)
    assert status("VmRSS") - before < 3_000_000
