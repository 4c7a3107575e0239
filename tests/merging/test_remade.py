"""Relatives of which some store experts in one tensor, and some in one each."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mergesearch import Parents, merge, plan_merge
from mergesearch.merging import LiveModel
from tests import tiny
from tests.merging.test_conversion import CPU, IDS, make
from tests.merging.test_relatives import linear

KINDS = ["mixtral", "qwen3_moe", "deepseek_v3"]


def fused(folder: Path, out: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The same model, stored as its module has it."""
    shutil.copytree(folder, out)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    for kind in KINDS:
        for seed, name in enumerate(("one", "two")):
            make(folder / kind / name, kind, seed)
            fused(folder / kind / name, folder / kind / f"{name}-fused")
    return folder


def state(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = transformers.AutoModelForCausalLM.from_pretrained(
        folder
    ).state_dict()
    return state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [("one", "two-fused"), ("one-fused", "two")], ids="-".join)
def test_a_merge_has_the_firsts_layout_and_the_same_model(
    family: Path, tmp_path: Path, kind: str, names: tuple[str, str]
) -> None:
    plain = tmp_path / "plain"
    merge(linear(family / kind, "one", "two"), plain)
    recipe = linear(family / kind, *names)
    live = LiveModel(Parents.of(recipe), CPU)
    assert live.become(recipe) == merge(recipe, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == load_file(family / kind / names[0] / "model.safetensors").keys()
    assert plan_merge(recipe, Parents.of(recipe)).left_out == ()
    expected, found = state(plain), state(tmp_path / "out")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    loaded = transformers.AutoModelForCausalLM.from_pretrained(plain)
    with torch.no_grad():
        assert torch.equal(live.model(input_ids=IDS).logits, loaded(input_ids=IDS).logits)


@pytest.mark.parametrize("first", ["one", "one-fused"])
def test_a_stack_takes_layers_of_either(family: Path, tmp_path: Path, first: str) -> None:
    other = {"one": "two-fused", "one-fused": "two"}[first]

    def stack(one: str, two: str, out: str) -> dict[str, Tensor]:
        recipe = linear(family / "mixtral", one, two)
        part = recipe.slices[0]
        slices = tuple(
            part.model_copy(
                update={"sources": (source.model_copy(update={"layer_range": (0, 2)}),)}
            )
            for source in part.sources
        )
        merge(recipe.model_copy(update={"slices": slices}), tmp_path / out)
        return state(tmp_path / out)

    expected, found = stack("one", "two", "plain"), stack(first, other, "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 4


def test_an_adapter_of_the_second_model_is_read_in_the_firsts_layout(
    family: Path, tmp_path: Path
) -> None:
    folder = family / "qwen3_moe"
    lora = tiny.adapter(
        tmp_path / "lora", folder / "two", 1, target_modules=["q_proj"],
        target_parameters=["mlp.experts.down_proj"],
    )  # fmt: skip
    merge(linear(folder, "one", f"two+{lora}"), tmp_path / "plain")
    merge(linear(folder, "one", f"two-fused+{lora}"), tmp_path / "out")
    expected, found = state(tmp_path / "plain"), state(tmp_path / "out")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def test_the_dtype_is_the_files(family: Path, tmp_path: Path) -> None:
    folder = family / "mixtral"
    half = fused(folder / "two", tmp_path / "half", torch.bfloat16)
    parents = Parents.of(linear(folder, "one", str(half)))
    one, two = parents.models
    for name, spec in parents.specs(two).items():
        assert parents.specs(one)[name].shape == spec.shape
        assert parents.read(two, name).dtype == spec.dtype == torch.bfloat16
