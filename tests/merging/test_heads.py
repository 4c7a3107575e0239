"""Tied beside untied relatives whose class has its head under a name of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mergesearch import Parents, merge, plan_merge, read_recipe
from mergesearch.merging import LiveModel
from tests.merging.test_towers import TEXT, VISION

LINEAR = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: %s}, {model: %s}]\n"


def llava(tied: bool) -> Any:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**TEXT, tie_word_embeddings=tied),
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_id=40,
        tie_word_embeddings=tied,
    )
    return transformers.LlavaForConditionalGeneration(config)


def gpt_neox(tied: bool) -> Any:
    config = transformers.GPTNeoXConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=32, max_position_embeddings=32, tie_word_embeddings=tied,
    )  # fmt: skip
    return transformers.GPTNeoXForCausalLM(config)


KINDS: dict[str, tuple[Callable[[bool], Any], str]] = {
    "llava": (llava, "language_model.lm_head.weight"),
    "gpt_neox": (gpt_neox, "embed_out.weight"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_model_gives_its_embeddings_to_a_head_of_any_name(tmp_path: Path, kind: str) -> None:
    make, head = KINDS[kind]
    models = {}
    for seed, (name, tied) in enumerate((("tied", True), ("untied", False))):
        torch.manual_seed(seed)
        models[name] = make(tied)
        models[name].save_pretrained(tmp_path / name)
        assert (head in load_file(tmp_path / name / "model.safetensors")) != tied
    for order in (("tied", "untied"), ("untied", "tied")):
        recipe, out = read_recipe(LINEAR % order).resolved(tmp_path), tmp_path / order[0] / "out"
        digest = merge(recipe, out)
        loaded, info = type(models["tied"]).from_pretrained(out, output_loading_info=True)
        assert not any(info.values())
        for part in ("get_input_embeddings", "get_output_embeddings"):
            one, two = (getattr(model, part)().weight for model in models.values())
            assert torch.allclose(getattr(loaded, part)().weight, (one + two) / 2, atol=1e-6)
        assert LiveModel(Parents.of(recipe), torch.device("cpu")).become(recipe) == digest


def test_a_stored_copy_of_the_embeddings_is_no_head_of_its_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        gpt_neox(True).save_pretrained(tmp_path / name)
        path = tmp_path / name / "model.safetensors"
        tensors = load_file(path)
        copy = tensors["gpt_neox.embed_in.weight"].clone()
        save_file({**tensors, "embed_out.weight": copy}, path, {"format": "pt"})
    recipe = read_recipe(LINEAR % ("one", "two")).resolved(tmp_path)
    plan = plan_merge(recipe, Parents(recipe.models))
    assert plan.left_out == ("embed_out.weight",)
    assert plan.config["tie_word_embeddings"]
