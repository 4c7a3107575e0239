"""Architectures whose files hold other tensors than their modules: scored as transformers loads."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mergesearch import Parents, merge, plan_merge, read_recipe
from mergesearch.errors import InputError
from mergesearch.merging import LearnableModel, LiveModel, build
from mergesearch.merging.conversion import Conversion
from mergesearch.recipe import Recipe
from tests import tiny

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 20, 31, 4], [1, 30, 8, 8, 2, 7]])
_COMMON: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "pad_token_id": 3, "initializer_range": 0.3,
}  # fmt: skip
_KV = {"num_key_value_heads": 1, "head_dim": 8}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("GPTNeoXConfig", _COMMON),
    "mixtral": ("MixtralConfig", {**_COMMON, **_KV, "num_local_experts": 12}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_COMMON, **_KV, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            **_COMMON, "num_key_value_heads": 2, "n_routed_experts": 4, "n_group": 2,
            "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8, "v_head_dim": 8,
        },
    ),
}  # fmt: skip


def make(folder: Path, kind: str, seed: int) -> None:
    name, values = CONFIGS[kind]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**values)
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    for kind in CONFIGS:
        for seed, name in enumerate(("base", "one", "two")):
            make(folder / kind / name, kind, seed)
    return folder


def ties(kind: str, folder: Path) -> Recipe:
    text = """
    merge_method: ties
    base_model: base
    parameters: {density: 0.6}
    models:
    - {model: one, parameters: {weight: [{filter: mlp, value: 0.7}, {value: 0.2}]}}
    - {model: two, parameters: {weight: 0.4}}
    """
    return read_recipe(text).resolved(folder / kind)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    out: Tensor = model(input_ids=IDS).logits
    return out


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_scored_is_the_exported_checkpoint(family: Path, tmp_path: Path, kind: str) -> None:
    recipe = ties(kind, family)
    live = LiveModel(Parents.of(recipe), CPU)
    digest = live.become(recipe)
    assert digest == merge(recipe, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(live.model), logits(loaded))
    stored = {
        p: load_file(p / "model.safetensors") for p in (family / kind / "one", tmp_path / "out")
    }
    one, out = stored.values()
    assert one.keys() == out.keys()


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_stack_of_layers_is_scored_as_exported(family: Path, tmp_path: Path, kind: str) -> None:
    text = """
    merge_method: passthrough
    slices:
    - sources: [{model: one, layer_range: [0, 2]}]
    - sources: [{model: two, layer_range: [1, 2]}]
    """
    recipe = read_recipe(text).resolved(family / kind)
    live = LiveModel(Parents.of(recipe), CPU)
    assert live.become(recipe) == merge(recipe, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(live.model), logits(loaded))


@pytest.mark.parametrize("kind", ["mixtral", "gpt_neox"])
def test_gradients_go_through_fused_parameters(family: Path, kind: str) -> None:
    text = """
    merge_method: task_arithmetic
    base_model: base
    models: [{model: one, parameters: {weight: %s}}, {model: two, parameters: {weight: 0.3}}]
    """

    def plan_of(weight: float) -> Any:
        recipe = read_recipe(text % weight).resolved(family / kind)
        return plan_merge(recipe, parents), recipe

    parents = Parents.of(read_recipe(text % 0.5).resolved(family / kind))
    plan, _ = plan_of(0.5)

    def loss(model: Any) -> Tensor:
        out: Tensor = model(input_ids=IDS).logits.double().square().mean()
        return out

    with LearnableModel.over(build(plan, CPU), plan, parents) as learnable:
        loss(learnable.model).backward()
        found = sum(float(of["weight"][0]) for of in learnable.gradients().values())
    live, step = LiveModel(parents, CPU), 1e-3
    sides = []
    for weight in (0.5 + step, 0.5 - step):
        live.become(plan_of(weight)[1])
        with torch.no_grad():
            sides.append(float(loss(live.model)))
    assert found == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=2e-2)


def test_relatives_in_two_spellings_are_merged_in_the_first_ones(tmp_path: Path) -> None:
    """GPT-2 as published has no `transformer.` before its names, and masks among its tensors."""
    values = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    for seed, name in enumerate(("base", "one")):
        torch.manual_seed(seed)
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**values)).save_pretrained(
            tmp_path / name
        )
        tiny.tokenizer().save_pretrained(tmp_path / name)
    path = tmp_path / "base" / "model.safetensors"
    saved = load_file(path)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in saved.items()}
    bare["h.0.attn.bias"] = torch.ones(64, 64).tril()[None, None]
    save_file(bare, path, {"format": "pt"})
    for first, other in (("base", "one"), ("one", "base")):
        models = f"[{{model: {first}}}, {{model: {other}}}]"
        text = f"{{merge_method: linear, parameters: {{weight: 1}}, models: {models}}}"
        recipe = read_recipe(text).resolved(tmp_path)
        live = LiveModel(Parents.of(recipe), CPU)
        out = tmp_path / f"out-{first}"
        assert live.become(recipe) == merge(recipe, out)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(out)
        assert torch.equal(logits(live.model), logits(loaded))
        merged = load_file(out / "model.safetensors")
        name = "h.1.mlp.c_fc.weight" if first == "base" else "transformer.h.1.mlp.c_fc.weight"
        one = load_file(tmp_path / "one" / "model.safetensors")["transformer.h.1.mlp.c_fc.weight"]
        assert torch.equal(merged[name], (one + saved["transformer.h.1.mlp.c_fc.weight"]) / 2)


def test_experts_of_another_shape_are_an_error_in_one_line(family: Path, tmp_path: Path) -> None:
    recipe = ties("mixtral", family)
    shapes = plan_merge(recipe, Parents.of(recipe)).shapes
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(family / "mixtral" / "one")
    )
    name = "model.layers.0.block_sparse_moe.experts.3.w1.weight"
    with pytest.raises(InputError, match=r"transformers cannot make .*gate_up_proj") as caught:
        Conversion(model, {**shapes, name: (5, 7)})
    assert "\n" not in str(caught.value)
    fewer = {n: shape for n, shape in shapes.items() if ".experts." not in n}
    with pytest.raises(InputError, match=r"only the model has .*experts"):
        Conversion(model, fewer)
