"""Stacks of models whose classes know each layer's kind by other fields than a list."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTNeoConfig,
    Llama4TextConfig,
    PretrainedConfig,
    Qwen2Config,
    SmolLM3Config,
    Zamba2Config,
)

from mergesearch import merge
from mergesearch.errors import InputError, RecipeError
from mergesearch.merging import LiveModel
from mergesearch.merging.layered import check_said, of_layers, per_layer, spelled_out
from mergesearch.parents import Parents
from mergesearch.recipe import read_recipe
from tests.architectures.shrink import tiny_config

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
IDS = torch.tensor([[1, 5, 9, 20, 31, 4, 7, 8, 11, 12], [1, 30, 8, 8, 2, 7, 9, 6, 21, 5]])
#: Layers 0, 1, 2 of one model, and 2, 3 of the other.
STACK = """
merge_method: passthrough
slices:
- sources: [{model: one, layer_range: [0, 3]}]
- sources: [{model: two, layer_range: [2, 4]}]
"""
ORIGIN = [("one", 0), ("one", 1), ("one", 2), ("two", 2), ("two", 3)]
MoE = {"num_local_experts": 2, "intermediate_size_mlp": 24, "head_dim": 8}
#: A configuration, the lists that its class makes, and what it makes them of.
KINDS: dict[str, tuple[Callable[[], PretrainedConfig], list[str], dict[str, Any]]] = {
    "gemma3": (
        lambda: Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=3, sliding_window_pattern=2),
        ["layer_types"],
        {"sliding_window_pattern": 2},
    ),
    "qwen2": (
        lambda: Qwen2Config(
            **SIZES, use_sliding_window=True, sliding_window=3, max_window_layers=2
        ),
        ["layer_types"],
        {"max_window_layers": 2},
    ),
    "smollm3": (
        lambda: SmolLM3Config(**SIZES, no_rope_layer_interval=2),
        ["no_rope_layers", "layer_types"],
        {"no_rope_layer_interval": 2},
    ),
    "llama4": (
        lambda: Llama4TextConfig(
            **SIZES, **MoE, no_rope_layer_interval=2, attention_chunk_size=4, moe_layers=[1, 3]
        ),
        ["no_rope_layers", "layer_types"],
        {"no_rope_layer_interval": 2},
    ),
}


def write(folder: Path, kind: str) -> None:
    """Two models of a kind, as transformers saves them."""
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(KINDS[kind][0]()).save_pretrained(folder / name)


def of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS).logits.clone()


def spliced(folder: Path, lists: list[str]) -> Any:
    """Layers of two models in a list of modules, each as its own model has it."""
    models = {name: of(folder / name) for name in ("one", "two")}
    config = models["one"].config
    said = {key: [getattr(models[m].config, key)[i] for m, i in ORIGIN] for key in lists}
    layers = [models[model].model.layers[i] for model, i in ORIGIN]
    for at, layer in enumerate(layers):
        layer.self_attn.layer_idx = at
    for key, values in said.items():
        setattr(config, key, values)
    config.num_hidden_layers = len(layers)
    models["one"].model.layers = torch.nn.ModuleList(layers)
    models["one"].model.norm = models["two"].model.norm  # what follows is the last slice's
    if not config.tie_word_embeddings:
        models["one"].lm_head = models["two"].lm_head
    return models["one"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stacks_layers_keep_their_kind_however_it_is_said(tmp_path: Path, kind: str) -> None:
    """By lists as transformers writes them, or by the fields that old files have."""
    _, lists, fields = KINDS[kind]
    write(tmp_path, kind)
    shutil.copytree(tmp_path, tmp_path / "old")
    for name in ("one", "two"):
        path = tmp_path / "old" / name / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in config.items() if k not in lists} | fields))
        assert torch.equal(logits(of(tmp_path / name)), logits(of(path.parent)))
    expected = logits(spliced(tmp_path, lists))
    for folder in (tmp_path, tmp_path / "old"):
        merge(read_recipe(STACK).resolved(folder), folder / "out")
        assert torch.equal(logits(of(folder / "out")), expected)


def test_a_pattern_of_layers_is_spelled_out(tmp_path: Path) -> None:
    """As GPT-Neo has it, of which the list that a stack needs follows."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_heads": 4, "window_size": 8}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        pattern = [[["global", "local"], 2]]
        config = GPTNeoConfig(**sizes, num_layers=4, attention_types=pattern)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        said = json.loads(path.read_text())
        del said["attention_layers"]
        path.write_text(json.dumps(said))
    merge(read_recipe(STACK).resolved(tmp_path), tmp_path / "out")
    kinds = ["global", "local", "global", "global", "local"]
    assert of(tmp_path / "out").config.attention_layers == kinds


def test_a_stack_that_its_class_cannot_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(PretrainedConfig):
        """Whatever is said, its layers alternate."""

        def to_dict(self) -> dict[str, Any]:
            return {"text_config": {"layer_types": ["a", "b", "a"]}}

    monkeypatch.setattr("mergesearch.merging.layered.configuration", lambda _: Fixed())
    check_said({"text_config": {"layer_types": ["a", "b", "a"]}}, frozenset())
    with pytest.raises(RecipeError, match=r"of its layer_types \['a', 'a', 'b'\] transformers ma"):
        check_said({"text_config": {"layer_types": ["a", "a", "b"]}}, frozenset())


def test_a_list_for_each_layer_is_one_that_grows_with_the_depth() -> None:
    config = {**Qwen2Config(**{**SIZES, "num_hidden_layers": 3}).to_dict(), "eos_token_id": [1, 2]}
    assert per_layer(config, 3) == {"layer_types"}
    unknown = {"model_type": "of-its-own", "num_hidden_layers": 2, "layer_kinds": ["a", "b"]}
    assert spelled_out(unknown, 2) == unknown
    assert per_layer(unknown, 2) == frozenset()


def test_periods_of_layers_are_no_depth() -> None:
    config = {"num_hidden_layers": 4, "global_attn_every_n_layers": 4}
    stacked = of_layers(config, [(config, 0), (config, 1)], 4)
    assert stacked == {"num_hidden_layers": 2, "global_attn_every_n_layers": 4}
    short: dict[str, Any] = {"layer_types": ["a"]}
    with pytest.raises(RecipeError, match=r"layer_types .* must have a value for each"):
        of_layers({"layer_types": ["a", "b"]}, [(short, 0), (short, 1)], 2)


def test_layers_that_share_tensors_are_of_one_model(tmp_path: Path) -> None:
    """As Zamba2's attention blocks, of which only the first is in a file."""
    kinds = ["mamba", "hybrid", "mamba", "hybrid"]
    sizes = tiny_config("zamba2").to_dict() | {"num_hidden_layers": 4}
    config = Zamba2Config(**sizes | {"layers_block_type": kinds, "hybrid_layer_ids": [1, 3]})
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
    recipe = read_recipe(STACK).resolved(tmp_path)
    says = r"must be of one model in a stack, but in Zamba2ForCausalLM .*one and .*two; take both"
    with pytest.raises(InputError, match=says):
        merge(recipe, tmp_path / "out")
    live = LiveModel(Parents.of(recipe), torch.device("cpu"))
    with pytest.raises(InputError, match=says):
        live.become(recipe)
    assert not (tmp_path / "out").exists()
    alone = read_recipe(STACK.replace("two", "one")).resolved(tmp_path)
    merge(alone, tmp_path / "out")
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]


def test_what_lasts_to_the_last_layer_lasts_to_the_last_of_a_stack() -> None:
    """As ERNIE's experts, from a layer to a layer."""
    config = {"num_hidden_layers": 4, "moe_layer_start_index": 1, "moe_layer_end_index": 3}
    stack = of_layers(config, [(config, i) for i in (0, 1, 2, 2, 3)], 4)
    assert stack == config | {"num_hidden_layers": 5, "moe_layer_end_index": 4}


def test_what_is_said_of_single_layers_goes_with_them() -> None:
    """As Gemma 4's sizes of heads; labels have numbers as well, and are no layers'."""
    one = {"num_hidden_layers": 3, "per_layer_config": {"2": {"head_dim": 8}}, "id2label": {"2": 1}}
    two = one | {"per_layer_config": {"0": {"head_dim": 4}, "2": {"head_dim": 8}}}
    stack = of_layers(one, [(one, 0), (one, 2), (two, 0), (two, 1), (two, 2)], 3)
    assert stack["per_layer_config"] == {
        "1": {"head_dim": 8},
        "2": {"head_dim": 4},
        "4": {"head_dim": 8},
    }
    assert stack["id2label"] == one["id2label"]
