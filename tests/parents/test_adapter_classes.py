"""Adapters of models of every class, and adapters as trainers leave them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file

from mergesearch.errors import InputError
from mergesearch.parents import Parents
from tests import tiny
from tests.parents.test_adapter import check_equal_to_peft, ref

_TEXT: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
_QWEN_VISION = {
    "depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "mlp_ratio": 2,
    "patch_size": 14,
}  # fmt: skip
_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def t5() -> t.PreTrainedModel:
    sizes = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 1, "num_heads": 2}
    return t.T5ForConditionalGeneration(t.T5Config(vocab_size=64, **sizes))


def whisper() -> t.PreTrainedModel:
    config = t.WhisperConfig(
        vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8,
        max_source_positions=16, max_target_positions=16, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return t.WhisperForConditionalGeneration(config)


def llava() -> t.PreTrainedModel:
    parts: dict[str, Any] = {
        "text_config": t.LlamaConfig(**_TEXT),
        "vision_config": t.CLIPVisionConfig(**_VISION),
    }
    return t.LlavaForConditionalGeneration(t.LlavaConfig(**parts, image_token_id=40))


def qwen2_vl() -> t.PreTrainedModel:
    config = t.Qwen2VLConfig(
        text_config={**_TEXT, "rope_parameters": _ROPE}, vision_config=_QWEN_VISION,
        image_token_id=40, video_token_id=41, vision_start_token_id=42, vision_end_token_id=43,
    )  # fmt: skip
    return t.Qwen2VLForConditionalGeneration(config)


def reward() -> t.PreTrainedModel:
    return t.LlamaForSequenceClassification(t.LlamaConfig(**_TEXT, num_labels=1))


def masked() -> t.PreTrainedModel:
    sizes = {k: v for k, v in _TEXT.items() if k != "num_key_value_heads"}
    return t.BertForMaskedLM(t.BertConfig(**sizes))


CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "T5": (t5, {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"}),
    "Whisper": (whisper, {}),
    "LLaVA": (llava, {}),
    "Qwen2-VL": (qwen2_vl, {"target_modules": ["q_proj", "qkv"]}),
    "reward model": (reward, {"task_type": "SEQ_CLS"}),
    "BERT": (masked, {"target_modules": ["query", "value"]}),
}


@pytest.mark.parametrize(("make", "settings"), CLASSES.values(), ids=CLASSES)
def test_an_adapter_reads_as_peft_merges_it_whatever_its_bases_class(
    tmp_path: Path, make: Any, settings: dict[str, Any]
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    base, lora = tmp_path / "base", tmp_path / "lora"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        model.save_pretrained(base)
        kind = type(model)
        changed = get_peft_model(
            kind.from_pretrained(base), LoraConfig(**{"target_modules": ["q_proj"], **settings})
        )
        for name, parameter in changed.named_parameters():
            if parameter.requires_grad and "lora_A" not in name:
                torch.nn.init.normal_(parameter, std=0.1)
        changed.save_pretrained(lora)
    merged = PeftModel.from_pretrained(kind.from_pretrained(base), lora).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    expected = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    parents = Parents([ref(base, lora)])
    (parent,) = parents.models
    assert parents.specs(parent).keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(parents.read(parent, name), tensor), name
    assert any(not torch.equal(before[name], tensor) for name, tensor in expected.items())


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A base and an adapter of it that retrained a norm."""
    base = tiny.llama(tmp_path / "base", 0)
    return base, tiny.adapter(tmp_path / "lora", base, 1, modules_to_save=["norm"])


def renamed(adapter: Path, change: Any) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    kept = {change(name): tensor.clone() for name, tensor in tensors.items() if change(name)}
    save_file(kept, file, {"format": "pt"})


def test_an_adapters_own_name_in_its_keys_is_passed_over(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = pair
    plain = Parents([ref(base, adapter)])
    old = Path(shutil.copytree(adapter, tmp_path / "old"))

    def with_name(name: str) -> str:
        head, _, leaf = name.rpartition(".")
        return f"{head}{'' if '.lora_' in head else '.modules_to_save'}.default.{leaf}"

    renamed(old, with_name)
    found = Parents([ref(base, old)])
    for name in plain.specs(plain.models[0]):
        expected = plain.read(plain.models[0], name)
        assert torch.equal(found.read(found.models[0], name), expected)
    check_equal_to_peft(base, adapter)


def test_an_adapter_without_tensors_is_called_so(pair: tuple[Path, Path]) -> None:
    renamed(pair[1], lambda _: None)
    with pytest.raises(InputError, match="has no tensors, so that the adapter changes nothing"):
        Parents([ref(*pair)])


def test_an_adapter_that_lacks_a_part_is_called_so(pair: tuple[Path, Path]) -> None:
    renamed(pair[1], lambda name: "lora_B" not in name and name)
    with pytest.raises(InputError, match=r"lacks .*down_proj\.lora_B\.weight, and has other parts"):
        Parents([ref(*pair)])


def test_a_base_that_names_no_head_is_the_causal_model_of_its_kind(
    pair: tuple[Path, Path],
) -> None:
    base, adapter = pair
    expected = Parents([ref(base, adapter)])
    config = base / "config.json"
    for named in (["LlamaModel"], None, ["NoSuchClass"]):
        data = json.loads(config.read_text()) | {"architectures": named}
        config.write_text(json.dumps(data))
        found = Parents([ref(base, adapter)])
        name = "model.layers.1.self_attn.q_proj.weight"
        assert torch.equal(
            found.read(found.models[0], name), expected.read(expected.models[0], name)
        )


def test_an_adapter_that_was_trained_without_a_head_fits_a_base_that_has_one(
    tmp_path: Path,
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    base, lora = tiny.llama(tmp_path / "base", 0), tmp_path / "lora"
    settings = {"target_modules": ["q_proj", "up_proj"], "task_type": "FEATURE_EXTRACTION"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        changed = get_peft_model(t.AutoModel.from_pretrained(base), LoraConfig(**settings))
        for name, parameter in changed.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        changed.save_pretrained(lora)
    merged = PeftModel.from_pretrained(t.AutoModel.from_pretrained(base), lora).merge_and_unload()
    parents = Parents([ref(base, lora)])
    (parent,) = parents.models
    for name, tensor in merged.state_dict().items():
        assert torch.equal(parents.read(parent, f"model.{name}"), tensor), name


def test_a_bias_of_an_adapter_needs_one_in_the_base(tmp_path: Path) -> None:
    base = tiny.llama(tmp_path / "base", 0)
    adapter = tiny.adapter(tmp_path / "lora", base, 1, lora_bias=True)
    with pytest.raises(InputError, match=r"_proj\.bias is none of its .*, and lora_bias needs one"):
        Parents([ref(base, adapter)])
