"""Vocabularies of tokenizers that have no `tokenizer.json`."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from mergesearch import merge
from mergesearch.errors import InputError
from mergesearch.parents import Parents, load_tokenizer
from mergesearch.parents import token_ids as module
from mergesearch.recipe import ModelRef, Recipe, read_recipe
from tests import tiny

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


def test_added_tokens_of_an_old_tokenizer_keep_their_flags_in_the_union(tmp_path: Path) -> None:
    bert(tmp_path / "one", 1, WORDS)
    two = bert(tmp_path / "two", 2, WORDS[:-2])
    (two / "added_tokens.json").write_text(json.dumps({"<chat>": 18, "plain": 19}))
    flags = {"special": True, "normalized": False, "lstrip": False, "rstrip": True}
    added = {"18": {"content": "<chat>", "single_word": False, **flags}}
    file = two / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"added_tokens_decoder": added}))
    merge(recipe(tmp_path, tokenizer_source="union"), tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    token = tokenizer.added_tokens_decoder[tokenizer.convert_tokens_to_ids("<chat>")]
    assert (token.special, token.rstrip) == (True, True)
    assert tokenizer.decode(tokenizer("w1 <chat> w2")["input_ids"][1:-1]) == "w1 <chat> w2"
    assert "<chat>" not in tokenizer.decode(
        tokenizer("w1 <chat> w2")["input_ids"], skip_special_tokens=True
    )


def test_more_rows_under_the_same_old_tokenizer_are_padding(tmp_path: Path) -> None:
    one, two = bert(tmp_path / "one", 1, WORDS), bert(tmp_path / "two", 2, WORDS)
    config = BertConfig.from_pretrained(two)
    config.vocab_size = 24
    BertForMaskedLM(config).save_pretrained(two)
    with pytest.raises(InputError, match=r"embedding has 20 rows in .*one and 24 in .*two; set"):
        Parents(refs(one, two))
    assert Parents(refs(one, two), vocabulary="base").alignment.vocab_size == 20


def test_a_tokenizer_of_no_tokens_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = bert(tmp_path / "one", 1, WORDS), bert(tmp_path / "two", 2, WORDS[::-1])
    (two / "vocab.txt").rename(two / "tekken.json")
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({})))
    monkeypatch.setattr(module, "load_tokenizer", lambda folder: empty)
    with pytest.raises(InputError, match=r"tokenizer_source union needs .*one/tokenizer\.json"):
        Parents(refs(one, two), vocabulary="union")


def test_a_tokenizers_own_code_is_never_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bert(tmp_path / "one", 1, WORDS)
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (one / "tokenizer_config.json").write_text(json.dumps(own))
    (one / "own.py").write_text("raise SystemExit")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # as at a terminal
    with pytest.raises(InputError, match="no tokenizer that transformers can load"):
        load_tokenizer(one)


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


def test_a_sentencepiece_model_is_a_vocabulary(tmp_path: Path) -> None:
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    texts = iter(["the quick brown fox jumps", "over the lazy dog, the other fox"] * 3)
    trainer.train(
        sentence_iterator=texts, model_prefix=str(tmp_path / "sp"), vocab_size=34, minloglevel=2
    )
    for name, token in (("one", "<a>"), ("two", "<b>")):
        folder = tiny.llama(tmp_path / name, 1, vocab_size=35)
        (folder / "tokenizer.json").unlink()
        shutil.copy(tmp_path / "sp.model", folder / "tokenizer.model")
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        added = {"34": {"content": token, "special": True}}
        settings = {"tokenizer_class": "LlamaTokenizer", **names, "added_tokens_decoder": added}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"they differ first at token '<a>', id 34; set"):
        merge(recipe(tmp_path), tmp_path / "out")
    merge(recipe(tmp_path, tokenizer_source="union"), tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["<a>", "<b>"]) == [34, 35]
    assert {"<a>", "<b>"} <= {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
