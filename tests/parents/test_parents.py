"""Parents under a memory budget: what is kept, what is streamed, and that both read the same."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.parents import Checkpoint, Parents
from mergesearch.parents.change import Change
from mergesearch.parents.usage import available_bytes, process_bytes
from mergesearch.recipe import ModelRef
from tests import tiny
from tests.parents.test_mapping import proc, status

PLENTY, MB = 10**12, 10**6


def ref(*parts: Path) -> ModelRef:
    value: Any = "+".join(str(part) for part in parts)
    return ModelRef.model_validate(value)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    tiny.llama(folder / "base", 0, dtype=torch.bfloat16)
    tiny.llama(folder / "one", 1, base=folder / "base", dtype=torch.bfloat16)
    tiny.adapter(folder / "lora", folder / "base", 2)
    return folder


@pytest.fixture(scope="session")
def models(folder: Path) -> list[ModelRef]:
    return [ref(folder / "base"), ref(folder / "one"), ref(folder / "base", folder / "lora")]


@pytest.fixture
def streamed(models: list[ModelRef], monkeypatch: pytest.MonkeyPatch) -> Parents:
    """The models with the most reserved that can be: there is no room but for streaming."""
    monkeypatch.setattr("mergesearch.parents.residency.process_bytes", lambda: 0)
    parents = Parents(models, memory_budget=PLENTY)
    fits, too_much = 0, PLENTY
    while too_much - fits > 1:
        middle = (fits + too_much) // 2
        try:
            parents.memory_plan({"ballast": middle})
            fits = middle
        except InputError:
            too_much = middle
    parents.reserve({"ballast": fits})
    assert set(parents.residences.values()) == {"mapped"}
    return parents


def everything(parents: Parents) -> Iterator[tuple[ModelRef, str]]:
    for model in parents.models:
        for name in parents.specs(model):
            yield model, name


def read_all(parents: Parents) -> dict[tuple[ModelRef, str], Tensor]:
    tensors = {}
    for model, name in everything(parents):
        tensors[model, name] = parents.read(model, name).clone()
        parents.release(model, name)
    return tensors


def test_kept_and_streamed_parents_read_the_same_and_stay_as_they_are(
    folder: Path, models: list[ModelRef], streamed: Parents
) -> None:
    files = [folder / name / "model.safetensors" for name in ("base", "one")]
    before = [file.read_bytes() for file in files]
    kept = Parents(models, memory_budget=PLENTY)
    assert list(kept.residences.values()) == ["host"] * 3
    expected = read_all(kept)
    assert {tensor.dtype for tensor in expected.values()} == {torch.float32, torch.bfloat16}
    # a second time what an adapter adds to comes from memory
    for found in (read_all(kept), read_all(streamed), read_all(streamed)):
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype
            assert torch.equal(found[key], tensor), key
    assert [file.read_bytes() for file in files] == before


def count_deltas(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    value = Change.value

    def counted(self: Change, base: Checkpoint) -> Tensor:
        asked.append(self.replaces)
        return value(self, base)

    monkeypatch.setattr(Change, "value", counted)
    return asked


def test_what_a_kept_adapter_adds_is_computed_once_even_for_threads(
    models: list[ModelRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_deltas(monkeypatch)
    parents = Parents(models, memory_budget=PLENTY)
    name = "model.layers.0.self_attn.q_proj.weight"
    with ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(lambda _: parents.read(models[2], name), range(32)))
    assert asked == [name]
    assert all(torch.equal(tensor, sums[0]) for tensor in sums)
    parents.release(models[2], name)
    parents.read(models[2], name)
    assert asked == [name]


def test_what_a_streamed_adapter_adds_is_computed_each_time(
    models: list[ModelRef], streamed: Parents, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_deltas(monkeypatch)
    name = "model.layers.0.self_attn.q_proj.weight"
    first = streamed.read(models[2], name)
    streamed.release(models[2], name)
    assert torch.equal(streamed.read(models[2], name), first)
    assert asked == [name, name]


def test_threads_read_streamed_parents_while_others_release_them(
    models: list[ModelRef], streamed: Parents
) -> None:
    expected = read_all(Parents(models, memory_budget=PLENTY))

    def check(key: tuple[ModelRef, str]) -> bool:
        equal = torch.equal(streamed.read(*key), expected[key])
        streamed.release(*key)
        return equal

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, list(expected) * 4))


def test_what_is_reserved_decides_anew_and_forgets(
    models: list[ModelRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergesearch.parents.residency.process_bytes", lambda: 0)
    parents = Parents(models, memory_budget=10 * MB)
    asked = count_deltas(monkeypatch)
    name = "model.layers.0.self_attn.q_proj.weight"
    parents.read(models[2], name)
    parents.memo.recall("k", lambda: torch.ones(3))
    room = parents.memory_plan({}).spare("host")
    assert parents.memo.limit_bytes == room
    plan = parents.reserve({"live model": room - 12})
    assert list(parents.residences.values()) == ["host"] * 3
    assert (plan.spare("host"), parents.memo.limit_bytes, parents.memo.n_bytes) == (12, 12, 0)
    parents.read(models[2], name)
    assert asked == [name, name]
    before = parents.residences
    with pytest.raises(InputError, match=r"live model 0\.01 GB"):
        parents.memory_plan({"live model": 10 * MB})
    assert parents.residences == before
    fewer = parents.reserve({"live model": room + 4_000})
    assert "mapped" in fewer.residences and "host" in fewer.residences
    assert parents.residences == dict(zip(models, fewer.residences, strict=True))


def test_a_plan_names_what_takes_memory(
    models: list[ModelRef], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    parents = Parents(models, memory_budget=PLENTY)
    rows = {row.what: row for row in parents.memory_plan({"live model": 5}).rows}
    assert [*rows] == [
        "this process so far", "base", "one", "base+lora", "reading", "merging", "live model",
    ]  # fmt: skip
    size = sum(spec.n_bytes for spec in parents.specs(models[0]).values())
    assert rows["base"].n_bytes == rows["one"].n_bytes == size
    changed = [n for n in parents.specs(models[0]) if any(p in n for p in ("q_p", "v_p", "down"))]
    wide = sum(parents.specs(models[0])[name].float_bytes for name in changed)
    assert rows["base+lora"].n_bytes == wide  # the rest it shares with the base
    assert rows["live model"].n_bytes == 5
    given = {row.what: row for row in parents.memory_plan({"merging": 7}).rows}
    assert given["merging"].n_bytes == 7


def test_without_a_budget_most_of_what_is_available_is_used(models: list[ModelRef]) -> None:
    budget = Parents(models).memory_plan({}).budget
    assert 0.7 * (available_bytes() + process_bytes()) < budget
    assert budget < process_bytes() + 0.9 * available_bytes()


def test_too_small_a_budget_is_refused_at_opening(models: list[ModelRef]) -> None:
    with pytest.raises(InputError, match=r"streams every model must fit the memory budget, got"):
        Parents(models, memory_budget=MB)


# Measured


@pytest.fixture(scope="session")
def large(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[ModelRef]:
    """Three models of 60 MB, in tensors of 3 MB."""
    root = tmp_path_factory.mktemp("large")
    for seed in range(3):
        target = root / f"m{seed}"
        target.mkdir()
        shutil.copy(folder / "base" / "config.json", target)
        tensors = {f"layers.{i}.w": torch.full((1_000, 750), float(seed)) for i in range(20)}
        save_file(tensors, target / "model.safetensors")
    return [ref(root / f"m{seed}") for seed in range(3)]


@proc
@pytest.mark.parametrize(("kept", "room_mb"), [(0, 50), (1, 100), (2, 150), (3, 250)])
def test_resident_memory_is_as_planned(
    large: list[ModelRef], kept: int, room_mb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one tensor is merged at a time
    float(torch.ones(1000).mean())  # what torch loads at the first use
    parents = Parents(large, memory_budget=process_bytes() + room_mb * MB)
    plan = parents.reserve({"merging": 0})
    assert sum(residence == "host" for residence in parents.residences.values()) == kept
    before = most = status("VmRSS")
    for _ in range(2):
        for name in parents.specs(large[0]):
            for model in large:
                parents.read(model, name).mean()
            most = max(most, status("VmRSS"))
            for model in large:
                parents.release(model, name)
    planned = sum(row.n_bytes for row in plan.rows if row.what != "this process so far")
    assert 0.8 * planned - MB < most - before < 1.1 * planned + MB
    parents.reserve({})
    assert status("VmRSS") - before < 2 * MB


# Devices


def test_what_is_on_the_device_is_read_from_its_file_once(
    models: list[ModelRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's meta device, which holds no values, in the place of an accelerator."""
    base, one, lora = models
    free = {"device": PLENTY}
    monkeypatch.setattr("mergesearch.parents.residency.device_bytes", lambda _: free["device"])
    parents = Parents(models, device=torch.device("meta"), memory_budget=PLENTY)
    assert set(parents.residences.values()) == {"device"}
    asked: list[tuple[Checkpoint, str]] = []
    read = Checkpoint.read

    def counted(self: Checkpoint, name: str) -> Tensor:
        asked.append((self, name))
        return read(self, name)

    monkeypatch.setattr(Checkpoint, "read", counted)
    name = "model.layers.0.self_attn.k_proj.weight"
    for model in (base, base, lora):  # the adapter leaves it as it is
        assert parents.read(model, name).device.type == "meta"
        parents.release(model, name)
    assert asked == [(parents.checkpoint(base), name)]
    del asked[:]
    sizes = {row.what: row.n_bytes for row in parents.memory_plan({}).rows}
    free["device"] = int((sizes["merging"] + sizes[str(base)] + 1_000) / 0.8)  # room for the base
    parents.reserve({})
    assert list(parents.residences.values()) == ["device", "host", "host"]
    for model in (base, base, one, one):
        assert parents.read(model, name).device.type == "meta"
        parents.release(model, name)
    assert [checkpoint.folder.name for checkpoint, _ in asked] == ["base", "one", "one"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("residence", ["device", "host", "mapped"])
def test_parents_read_the_same_on_cuda(
    models: list[ModelRef], residence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_all(Parents(models, memory_budget=PLENTY))
    parents = Parents(models, device=torch.device("cuda"), memory_budget=PLENTY)
    residency = parents._residency
    kept = {key: residence for one in residency._footprints for key in one.kept}
    monkeypatch.setattr(residency, "_kept", {} if residence == "mapped" else kept)
    for _ in range(2):
        for key, tensor in read_all(parents).items():
            assert tensor.device.type == "cuda"
            assert torch.equal(tensor.cpu(), expected[key])
