"""LoRA adapters as parents: equal to what peft merges, or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from mergesearch.errors import InputError
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef
from tests import tiny


def ref(base: Path, adapter: Path) -> ModelRef:
    value: Any = f"{base}+{adapter}"
    return ModelRef.model_validate(value)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A model with tied and one with untied embeddings."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        tied: tiny.llama(folder / f"tied-{tied}", 0, tie_word_embeddings=tied)
        for tied in (True, False)
    }


@pytest.fixture(scope="session")
def base(bases: dict[bool, Path]) -> Path:
    return bases[True]


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "alpha pattern": {"alpha_pattern": {"down_proj": 32}, "rank_pattern": {"q_proj": 2}},
    "all linear": {"target_modules": "all-linear"},
    "some layers": {"layers_to_transform": [1, 3], "layers_pattern": "layers"},
    "by expression": {"target_modules": r".*\.mlp\.(up|down)_proj"},
}


def check_equal_to_peft(base: Path, adapter: Path) -> None:
    from peft import PeftModel

    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: p.clone() for name, p in model.named_parameters()}
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    expected = dict(merged.named_parameters())
    parents = Parents([ref(base, adapter)])
    specs = parents.specs(ref(base, adapter))
    assert specs.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(parents.read(ref(base, adapter), name), tensor), name
    assert any(not torch.equal(before[name], expected[name]) for name in before)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_an_adapter_reads_as_peft_merges_it(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    check_equal_to_peft(base, tiny.adapter(tmp_path / "lora", base, 1, **settings))


@pytest.mark.parametrize("targets", [["embed_tokens"], ["embed_tokens", "q_proj"], ["lm_head"]])
def test_an_adapter_of_untied_embeddings_reads_as_peft_merges_it(
    bases: dict[bool, Path], tmp_path: Path, targets: list[str]
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", bases[False], 1, target_modules=targets)
    check_equal_to_peft(bases[False], adapter)


def test_an_adapter_of_tied_embeddings_reads_as_peft_merges_it(base: Path, tmp_path: Path) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1, target_modules=["embed_tokens", "v_proj"])
    check_equal_to_peft(base, adapter)


def test_an_adapter_of_a_tied_output_head_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1, target_modules=["lm_head", "q_proj"])
    with pytest.raises(InputError, match=r"changes lm_head\.weight, which .* does not store"):
        Parents([ref(base, adapter)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_sum_is_not_rounded_to_the_dtype_of_the_base(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    base = tiny.llama(tmp_path / "base", 0, dtype=dtype)
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    check_equal_to_peft(base, adapter)
    parents = Parents([ref(base, adapter)])
    changed = parents.read(ref(base, adapter), "model.layers.0.self_attn.q_proj.weight")
    assert changed.dtype == torch.float32
    assert not torch.equal(changed, changed.to(dtype).float())
    same = parents.read(ref(base, adapter), "model.layers.0.self_attn.k_proj.weight")
    assert same.dtype == dtype


def test_opening_an_adapter_leaves_the_global_random_state_alone(
    base: Path, tmp_path: Path
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    state = torch.get_rng_state()
    Parents([ref(base, adapter)])
    assert torch.equal(torch.get_rng_state(), state)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "the adapter uses use_dora, which is more than a delta"),
    "modules": ({"modules_to_save": ["lm_head"]}, "the adapter uses modules_to_save"),
    "bias": ({"bias": "lora_only"}, "the adapter uses bias"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "the adapter uses trainable_token_indices"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_an_adapter_that_is_more_than_a_delta_is_refused(
    base: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1, **settings)
    with pytest.raises(InputError, match=message):
        Parents([ref(base, adapter)])


@pytest.mark.parametrize("start", ["pissa_niter_4", "olora", "corda", "loftq"])
def test_an_adapter_that_changed_its_base_is_refused(
    base: Path, tmp_path: Path, start: str
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    change_config(adapter, init_lora_weights=start)
    with pytest.raises(InputError, match=f"init_lora_weights={start}"):
        Parents([ref(base, adapter)])


def change_config(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 32},
        {"num_hidden_layers": 6},
        {"num_hidden_layers": 2},
        {"num_key_value_heads": 4},
    ],
    ids=str,
)
def test_an_adapter_made_for_another_base_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = tiny.llama(tmp_path / "other", 1, **changes)
    adapter = tiny.adapter(tmp_path / "lora", other, 1)
    with pytest.raises(InputError, match="lora: the adapter was made for another base than") as e:
        Parents([ref(base, adapter)])
    assert "\n" not in str(e.value)


def test_an_adapter_for_modules_that_the_base_lacks_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    change_config(adapter, target_modules=["c_attn"])
    with pytest.raises(InputError, match="the adapter was made for another base than"):
        Parents([ref(base, adapter)])


def test_a_broken_adapter_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    weights = adapter / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-10])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: truncated"):
        Parents([ref(base, adapter)])
    weights.unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors in the folder"):
        Parents([ref(base, adapter)])
    weights.write_bytes(data)
    change_config(adapter, peft_type="IA3")
    with pytest.raises(InputError, match="only LoRA adapters are merged, got IA3"):
        Parents([ref(base, adapter)])
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"no adapter_config\.json in the folder"):
        Parents([ref(base, adapter)])


@pytest.mark.parametrize("model_type", [None, "no-such-architecture"])
def test_an_adapter_on_a_base_that_transformers_cannot_build_is_refused(
    base: Path, tmp_path: Path, model_type: str | None
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    odd = Path(shutil.copytree(base, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    del config["model_type"]
    if model_type is not None:
        config["model_type"] = model_type
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"transformers cannot build .*odd"):
        Parents([ref(odd, adapter)])
