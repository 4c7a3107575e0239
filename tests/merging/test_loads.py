"""Merges load without a parameter at random, or are refused before anything is written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    LlamaModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

from mergesearch import merge
from mergesearch.errors import InputError
from mergesearch.merging import loadable
from mergesearch.parents import empty_model
from mergesearch.recipe import read_recipe
from tests.architectures.shrink import tiny_config
from tests.merging import recipes

LINEAR = "{merge_method: linear, parameters: {weight: 1}, models: [{model: u-one}, {model: u-two}]}"
NAMES = ("u-one", "u-two")


@pytest.fixture
def untied(models: Path, tmp_path: Path) -> Path:
    """Two untied relatives that a test may change."""
    for name in NAMES:
        shutil.copytree(models / name, tmp_path / name)
    return tmp_path


def lose(folder: Path, tensor: str) -> None:
    for name in NAMES:
        path = folder / name / "model.safetensors"
        tensors = load_file(path)
        del tensors[tensor]
        save_file(tensors, path, {"format": "pt"})


def say(folder: Path, **changes: Any) -> None:
    for name in NAMES:
        path = folder / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("recipe", [LINEAR, recipes.STACK.format(p="u-")], ids=["whole", "stack"])
@pytest.mark.parametrize(
    "lost", ["model.layers.2.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight"]
)
def test_what_all_models_lack_is_an_error_before_anything_is_written(
    untied: Path, lost: str, recipe: str
) -> None:
    lose(untied, lost)
    with pytest.raises(InputError, match=r"every parameter of LlamaForCausalLM, .*none has"):
        merge(read_recipe(recipe).resolved(untied), untied / "out")
    assert sorted(file.name for file in untied.iterdir()) == ["u-one", "u-two"]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("vocab_size", "it is of 32 x 16 and vocab_size and hidden_size are 40 x 16; correct the"),
        ("intermediate_size", "hidden_size and intermediate_size are 16 x 40; correct the first"),
    ],
)
def test_shapes_that_the_configuration_does_not_say_are_an_error(
    untied: Path, key: str, told: str
) -> None:
    say(untied, **{key: 40})
    with pytest.raises(InputError, match=told):
        merge(read_recipe(LINEAR).resolved(untied), untied / "out")
    assert not (untied / "out").exists()


@pytest.mark.parametrize("arch", ["gpt2", "gemma2", "gpt_neox"])
def test_so_are_those_of_every_class_that_transformers_has(arch: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(tiny_config(arch))
    for name in NAMES:
        model.save_pretrained(tmp_path / name)
    rows = model.config.vocab_size + 8
    say(tmp_path, vocab_size=rows)
    with pytest.raises(InputError, match=rf"means, \[{rows}, .*correct that file"):
        merge(read_recipe(LINEAR).resolved(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lost", ["mlp.down_proj.weight", "post_attention_layernorm.weight"])
def test_what_every_layer_of_all_models_lacks_is_an_error(untied: Path, lost: str) -> None:
    for layer in range(4):
        lose(untied, f"model.layers.{layer}.{lost}")
    with pytest.raises(InputError, match=rf"none has model\.layers\.0\.{lost} and 3 more"):
        merge(read_recipe(LINEAR).resolved(untied), untied / "out")


@pytest.mark.parametrize("kind", loadable._LAYERS)
def test_a_layer_of_a_known_kind_is_that_of_its_class(kind: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(kind))
    start = "model.layers.1."
    names = {name.removeprefix(start) for name in model.state_dict() if name.startswith(start)}
    assert names == loadable._LAYERS[kind]


def test_a_model_without_a_head_is_merged_as_the_class_that_it_names(untied: Path) -> None:
    lose(untied, "lm_head.weight")
    say(untied, architectures=["LlamaModel"])
    merge(read_recipe(LINEAR).resolved(untied), untied / "out")
    _, info = LlamaModel.from_pretrained(untied / "out", output_loading_info=True)
    assert not info["missing_keys"]


@pytest.mark.parametrize("changes", [{"architectures": ["Mine"]}, {"auto_map": {"AutoModel": "x"}}])
def test_a_class_of_a_models_own_says_nothing(untied: Path, changes: dict[str, Any]) -> None:
    lose(untied, "lm_head.weight")
    say(untied, **changes)
    merge(read_recipe(LINEAR).resolved(untied), untied / "out")


def test_what_transformers_ties_or_fills_by_itself_need_not_be_stored(tmp_path: Path) -> None:
    """Bart's bias of logits, tied embeddings, and a convolution's weight in two parts."""
    sizes = {"d_model": 16, "vocab_size": 32, "max_position_embeddings": 32}
    halves = {f"{of}_{key}": n for of in ("encoder", "decoder") for key, n in (
        ("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    ears = Wav2Vec2Config(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(4, 4), conv_kernel=(3, 3), conv_stride=(2, 2),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    kinds: dict[str, Any] = {
        "bart": lambda: BartForConditionalGeneration(BartConfig(**sizes, **halves)),
        "ears": lambda: Wav2Vec2ForCTC(ears),
    }
    for kind, make in kinds.items():
        for seed, name in enumerate(NAMES):
            torch.manual_seed(seed)
            make().save_pretrained(tmp_path / kind / name)
        merge(read_recipe(LINEAR).resolved(tmp_path / kind), tmp_path / kind / "out")
        _, info = AutoModel.from_pretrained(tmp_path / kind / "out", output_loading_info=True)
        assert not info["missing_keys"]


@pytest.mark.parametrize("named", [True, {"a": 1}, "LlamaForCausalLM", [], [None], [["x"]],
                                   ["AutoModel"], ["logging"], ["LlamaConfig"]])  # fmt: skip
def test_what_is_no_models_class_is_none(named: Any) -> None:
    assert empty_model({"model_type": "llama", "architectures": named}) is None
