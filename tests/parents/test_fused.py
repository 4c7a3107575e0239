"""Adapters of experts that a module has in one tensor, and its files in one an expert."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergesearch import merge
from mergesearch.errors import InputError
from mergesearch.parents import Parents
from mergesearch.recipe import read_recipe
from tests import tiny
from tests.merging.test_conversion import make
from tests.parents.test_adapter import ref
from tests.parity.families import weights

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {"target_parameters": EXPERTS}),
    "qwen3_moe": ("qwen3_moe", {"target_parameters": EXPERTS, "target_modules": ["q_proj"]}),
    "deepseek_v3": ("deepseek_v3", {"target_parameters": EXPERTS[1:], "use_rslora": True}),
    "router": ("qwen3_moe", {"target_parameters": ["mlp.gate.weight"]}),
}


def merged_by_peft(base: Path, adapter: Path, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the files that peft's merge is saved to."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(tiny.with_rows(base), adapter).merge_and_unload()
    model.save_pretrained(folder)
    return weights(folder)


def check_equal_to_peft(base: Path, adapter: Path, folder: Path) -> None:
    expected = merged_by_peft(base, adapter, folder)
    parents, before = Parents([ref(base, adapter)]), weights(base)
    (parent,) = parents.models
    assert parents.specs(parent).keys() == expected.keys()
    changed = 0
    for name, tensor in expected.items():
        torch.testing.assert_close(parents.read(parent, name), tensor, rtol=1e-6, atol=1e-6)
        changed += not torch.equal(before[name], tensor)
    assert changed


@pytest.mark.parametrize(("kind", "settings"), CASES.values(), ids=CASES)
def test_an_adapter_of_experts_reads_as_peft_merges_it(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    base = tmp_path / "base"
    make(base, kind, 0)
    adapter = tiny.adapter(tmp_path / "lora", base, 1, **{"target_modules": [], **settings})
    check_equal_to_peft(base, adapter, tmp_path / "merged")


def of_single_experts(folder: Path, base: Path, modules: list[str]) -> Path:
    """An adapter as transformers 4 trained it: of linear layers, of each expert its own."""
    stored = {name.removesuffix(".weight"): t for name, t in weights(base).items()}
    generator, factors = torch.Generator().manual_seed(3), {}
    for name, tensor in stored.items():
        if name.rpartition(".")[2] in modules:
            rows, columns = tensor.shape
            for letter, shape in (("A", (4, columns)), ("B", (rows, 4))):
                factor = torch.randn(shape, generator=generator)
                factors[f"base_model.model.{name}.lora_{letter}.weight"] = factor
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_an_adapter_of_single_experts_is_that_of_the_fused_ones(tmp_path: Path) -> None:
    base = tmp_path / "base"
    make(base, "mixtral", 0)
    adapter = of_single_experts(tmp_path / "lora", base, ["w1", "w2", "w3", "q_proj"])
    check_equal_to_peft(base, adapter, tmp_path / "merged")
    factors = load_file(adapter / "adapter_model.safetensors")
    name = next(n for n in weights(base) if n.endswith("experts.11.w3.weight"))
    start = f"base_model.model.{name.removesuffix('.weight')}.lora_"
    delta = 2 * factors[f"{start}B.weight"] @ factors[f"{start}A.weight"]
    parents = Parents([ref(base, adapter)])
    torch.testing.assert_close(parents.read(parents.models[0], name), weights(base)[name] + delta)


def test_a_model_with_adapted_experts_merges(tmp_path: Path) -> None:
    make(tmp_path / "base", "mixtral", 0)
    adapter = tiny.adapter(
        tmp_path / "lora", tmp_path / "base", 1, target_modules=[], target_parameters=EXPERTS
    )
    text = f"merge_method: linear\nmodels: [{{model: base}}, {{model: base+{adapter}}}]\n"
    recipe = read_recipe(text + "parameters: {weight: 1}").resolved(tmp_path)
    merge(recipe, tmp_path / "out")
    expected = merged_by_peft(tmp_path / "base", adapter, tmp_path / "merged")
    before = weights(tmp_path / "base")
    for name, tensor in weights(tmp_path / "out").items():
        torch.testing.assert_close(tensor, (before[name] + expected[name]) / 2)


def test_an_adapter_of_some_of_what_is_fused_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "base", "mixtral", 0)
    adapter = of_single_experts(tmp_path / "lora", tmp_path / "base", ["w1", "w2"])
    with pytest.raises(InputError, match="w3") as caught:
        Parents([ref(tmp_path / "base", adapter)])
    assert "\n" not in str(caught.value)
