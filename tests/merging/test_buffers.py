"""Masks and positions that old checkpoints store are copied, and tables left to transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from mergesearch import evaluate, merge
from mergesearch.errors import InputError, RecipeError
from mergesearch.merging import plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe, read_recipe
from mergesearch.tasks import Suite, TaskSpec
from tests import tiny

N = 32


def gpt2(folder: Path, seed: int, **extra: Tensor) -> None:
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=N)
    saved(folder, GPT2LMHeadModel, config, seed, extra)


def saved(
    folder: Path, kind: type[PreTrainedModel], config: object, seed: int, extra: dict[str, Tensor]
) -> None:
    torch.manual_seed(seed)
    model: PreTrainedModel = kind(config)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file({**load_file(path), **extra}, path, {"format": "pt"})


def recipe(folder: Path) -> Recipe:
    models = "models: [{model: one}, {model: two}]"
    text = f"{{merge_method: linear, parameters: {{weight: 1}}, {models}}}"
    return read_recipe(text).resolved(folder)


def masks(dtype: torch.dtype) -> dict[str, Tensor]:
    """What GPT-2 stores as published."""
    mask = torch.tril(torch.ones(N, N)).to(dtype)[None, None]
    names = [f"transformer.h.{i}.attn" for i in range(2)]
    return {f"{name}.bias": mask.clone() for name in names} | {
        f"{name}.masked_bias": torch.tensor(-1e4) for name in names
    }


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("shards", [10**9, 4000], ids=["one file", "sharded"])
def test_masks_are_copied_as_they_are_stored(
    tmp_path: Path, dtype: torch.dtype, shards: int
) -> None:
    for seed, name in enumerate(("one", "two")):
        gpt2(tmp_path / name, seed, **masks(dtype))
    merge(recipe(tmp_path), tmp_path / "out", max_shard_bytes=shards)
    merged = {
        k: v for f in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(f).items()
    }
    stored = load_file(tmp_path / "one" / "model.safetensors")
    assert set(stored) - set(merged) == {f"transformer.h.{i}.attn.masked_bias" for i in range(2)}
    for name, mask in masks(dtype).items():
        if name.endswith(".attn.bias"):
            assert merged[name].dtype == dtype
            assert torch.equal(merged[name], mask)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


@pytest.mark.parametrize("first", ["one", "two"])
def test_a_relative_that_was_saved_anew_has_none_and_needs_none(tmp_path: Path, first: str) -> None:
    for seed, name in enumerate(("one", "two")):
        gpt2(tmp_path / name, seed, **(masks(torch.float32) if name == first else {}))
    plan = plan_merge(recipe(tmp_path), Parents(recipe(tmp_path).models))
    assert sorted(plan.left_out) == sorted(masks(torch.float32))
    merge(recipe(tmp_path), tmp_path / "out")
    assert not any(
        ".attn.bias" in name for name in load_file(tmp_path / "out" / "model.safetensors")
    )


def test_a_mask_that_only_another_model_has_is_named(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        gpt2(tmp_path / name, seed, **(masks(torch.bool) if name == "two" else {}))
    plan = plan_merge(recipe(tmp_path), Parents(recipe(tmp_path).models))
    assert plan.buffers == ()
    assert sorted(plan.left_out) == sorted(masks(torch.bool))


def test_masks_that_differ_are_an_error_that_names_one(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        mask = torch.full((1, 1, N, N), bool(seed))
        gpt2(tmp_path / name, seed, **{"transformer.h.1.attn.bias": mask})
    with pytest.raises(RecipeError, match=r"transformer\.h\.1\.attn\.bias must be the same"):
        merge(recipe(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_counts_of_batches_are_the_first_models(tmp_path: Path) -> None:
    name = "transformer.h.1.norm.num_batches_tracked"
    for seed, folder in enumerate(("one", "two")):
        gpt2(tmp_path / folder, seed, **{name: torch.tensor(100 + seed)})
    merge(recipe(tmp_path), tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")[name] == 100


def test_positions_are_copied(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=N,
    )  # fmt: skip
    name = "bert.embeddings.position_ids"
    for seed, folder in enumerate(("one", "two")):
        saved(tmp_path / folder, BertForMaskedLM, config, seed, {name: torch.arange(N)[None]})
    merge(recipe(tmp_path), tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(merged[name], torch.arange(N)[None])


def test_a_model_with_masks_is_scored(tmp_path: Path) -> None:
    tiny.task(tmp_path / "tasks", "first")
    suite = Suite(
        include_path=(tmp_path / "tasks",), search=(TaskSpec(task="first", metric="acc"),)
    )
    gpt2(tmp_path / "plain", 0)
    gpt2(tmp_path / "masked", 0, **masks(torch.float32))
    assert evaluate(tmp_path / "masked", suite).scores == evaluate(tmp_path / "plain", suite).scores


def test_weights_of_whole_numbers_are_still_refused(tmp_path: Path) -> None:
    gpt2(tmp_path / "one", 0)
    gpt2(
        tmp_path / "two",
        1,
        **{"transformer.h.0.mlp.c_fc.weight": torch.ones(2, 2, dtype=torch.uint8)},
    )
    with pytest.raises(
        InputError, match="has dtype U8; only F32, BF16, F16 are merged: dequantize"
    ):
        merge(recipe(tmp_path), tmp_path / "out")
    gpt2(tmp_path / "two", 1, **masks(torch.uint8))
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq"}})
    )
    with pytest.raises(InputError, match="dequantize the model first"):
        merge(recipe(tmp_path), tmp_path / "out")
