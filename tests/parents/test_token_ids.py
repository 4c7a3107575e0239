"""Vocabularies of tokenizers that have no `tokenizer.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from mergesearch import merge
from mergesearch.errors import InputError
from mergesearch.parents import Parents
from mergesearch.parents import token_ids as module
from mergesearch.recipe import ModelRef, Recipe, read_recipe

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{i}" for i in range(15)]


def bert(folder: Path, seed: int, words: Sequence[str]) -> Path:
    """A random BERT with a word list."""
    config = BertConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(config)
        torch.nn.init.normal_(model.cls.predictions.bias)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return folder


def recipe(folder: Path, **keys: str) -> Recipe:
    models = "models: [{model: one}, {model: two}], parameters: {weight: 1}"
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    return read_recipe(f"{{merge_method: linear, {models}{more}}}").resolved(folder)


def refs(*folders: Path) -> list[ModelRef]:
    values: list[Any] = [str(folder) for folder in folders]
    return [ModelRef.model_validate(value) for value in values]


def test_word_lists_in_another_order_are_another_vocabulary(tmp_path: Path) -> None:
    bert(tmp_path / "one", 1, WORDS)
    bert(tmp_path / "two", 2, WORDS[::-1])
    with pytest.raises(InputError, match=r"one vocabulary: 20 tokens .* token 'w0', id 5; set"):
        merge(recipe(tmp_path), tmp_path / "out")
    merge(recipe(tmp_path, tokenizer_source="union"), tmp_path / "out")
    out, one, two = (
        load_file(tmp_path / name / "model.safetensors") for name in ("out", "one", "two")
    )
    order = torch.tensor([*range(5), *range(19, 4, -1)])
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        torch.testing.assert_close(out[name], (one[name] + two[name][order]) / 2)
    assert (tmp_path / "out" / "vocab.txt").read_text().split() == [*SPECIAL, *WORDS]


def test_tokens_that_only_one_word_list_has_join_the_union(tmp_path: Path) -> None:
    bert(tmp_path / "one", 1, WORDS)
    bert(tmp_path / "two", 2, [*WORDS[:-1], "new"])
    parents = Parents.of(recipe(tmp_path, tokenizer_source="union"))
    assert parents.alignment.vocab_size == 21
    assert parents.notes[0] == (
        "tokenizer_source union: 1 token ('new') that the base lacks, taken from the other models"
    )


def test_a_word_list_is_compared_with_a_newer_file(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    one = bert(tmp_path / "one", 1, WORDS)
    same, other = bert(tmp_path / "same", 2, WORDS), bert(tmp_path / "other", 2, WORDS[::-1])
    AutoTokenizer.from_pretrained(one).save_pretrained(one)
    (one / "vocab.txt").unlink()
    assert (one / "tokenizer.json").exists()
    assert not Parents(refs(one, same)).alignment.changes
    assert not Parents(refs(same, one)).alignment.changes
    for pair in ((one, other), (other, one)):
        with pytest.raises(InputError, match="all models must share one vocabulary"):
            Parents(refs(*pair))


def test_equal_files_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (bert(tmp_path / name, 1, WORDS) for name in ("one", "two"))
    monkeypatch.setattr(module, "load_tokenizer", None)
    assert not Parents(refs(one, two)).alignment.changes


def test_tokenizers_that_differ_and_cannot_be_loaded_are_said(tmp_path: Path) -> None:
    one, two = (bert(tmp_path / name, 1, WORDS) for name in ("one", "two"))
    for folder in (one, two):
        (folder / "vocab.txt").unlink()
        settings = {"tokenizer_class": "LlamaTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "tokenizer.model").write_text("the same")
    assert Parents(refs(one, two)).notes == ()
    (two / "tokenizer.model").write_text("another")
    (note,) = Parents(refs(one, two)).notes
    assert note == (
        "no tokenizer_source: rows are taken by their ids, since tokenizers differ and "
        f"transformers loads none from {one}, {two}; add tokenizer.json to compare their tokens"
    )
