"""Adapters with a vocabulary of their own, from recipes to checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.exporting import write_checkpoint
from mergesearch.recipe import Recipe, load_recipe
from tests import tiny

NEW = ["<im_start>", "<im_end>"]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and an adapter trained after two tokens were added."""
    folder = tmp_path_factory.mktemp("adapters")
    base = tiny.llama(folder / "base", 0, tie_word_embeddings=request.param)
    tiny.adapter(folder / "lora", base, 1, n_rows=34, save_embedding_layers=True)
    tokenizer = tiny.tokenizer([*tiny.WORDS, *NEW])
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folder / "lora")
    return folder


def recipe(folder: Path, more: str = "") -> Recipe:
    (folder / "recipe.yaml").write_text(
        "merge_method: task_arithmetic\nbase_model: base\n"
        f"models: [{{model: base+lora, parameters: {{weight: 1}}}}]\n{more}"
    )
    return load_recipe(folder / "recipe.yaml")


def expected(folder: Path) -> Any:
    model = tiny.with_rows(folder / "base", 34)
    return PeftModel.from_pretrained(model, folder / "lora").merge_and_unload()


def loaded(out: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)


@pytest.mark.parametrize("source", ["union", "base", None])
def test_an_adapters_own_tokens_are_kept_or_dropped_as_a_recipe_says(
    folder: Path, tmp_path: Path, source: str | None
) -> None:
    said: list[str] = []
    more = f"tokenizer_source: {source}\n" if source else ""
    write_checkpoint(recipe(folder, more), tmp_path / "out", say=said.append)
    n_rows = 34 if source == "union" else 32
    model, wanted = loaded(tmp_path / "out"), expected(folder).state_dict()
    assert model.config.vocab_size == n_rows
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name][: len(tensor)], rtol=0, atol=1e-6)
    words = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert len(words) == n_rows
    assert (said[0].count("'<im_start>', '<im_end>'"), "dropped" in said[0]) == (1, n_rows == 32)


def test_an_adapted_model_alone_has_the_adapters_tokenizer(folder: Path, tmp_path: Path) -> None:
    (folder / "alone.yaml").write_text("{merge_method: passthrough, models: [{model: base+lora}]}")
    (folder / "base" / "added_tokens.json").write_text('{"<stale>": 7}')
    write_checkpoint(load_recipe(folder / "alone.yaml"), tmp_path / "out")
    wanted = expected(folder).state_dict()
    for name, tensor in loaded(tmp_path / "out").state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("w1 <im_end>")["input_ids"] == [5, 33]
    assert tokenizer.chat_template == "{{ messages }}"
    assert not (tmp_path / "out" / "added_tokens.json").exists()
    (folder / "base" / "added_tokens.json").unlink()


def test_a_head_that_an_adapter_retrained_is_exported_beside_its_embeddings(tmp_path: Path) -> None:
    base = tiny.llama(tmp_path / "base", 0)
    lora = tiny.adapter(tmp_path / "lora", base, 1, modules_to_save=["lm_head"])
    (tmp_path / "r.yaml").write_text("{merge_method: passthrough, models: [{model: base+lora}]}")
    write_checkpoint(load_recipe(tmp_path / "r.yaml"), tmp_path / "out")
    wanted = PeftModel.from_pretrained(tiny.with_rows(base), lora).merge_and_unload()
    model = loaded(tmp_path / "out")
    assert model.config.tie_word_embeddings is False
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted.state_dict()[name]), name
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
