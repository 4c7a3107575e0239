"""A recipe's words about tokens: whose they are, and where their rows come from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from mergesearch.errors import InputError, RecipeError
from mergesearch.exporting import write_checkpoint
from mergesearch.merging import plan_merge
from mergesearch.parents import Parents, load_tokenizer, tokenizer_of
from mergesearch.parents.tokenizer_settings import TokenizerSettings
from mergesearch.parents.vocabulary import Given, Vocabulary, align, unify
from mergesearch.recipe import Recipe, read_recipe
from tests import tiny
from tests.parents.test_vocabulary import checkpoint, model

BASE = model("base", "abc", 5)
ONE = model("one", "bacx", 6)
NAME = "model.embed_tokens.weight"


def tables(*models: Vocabulary) -> list[Tensor]:
    return [torch.rand(of.n_rows, 2) for of in models]


def test_a_named_vocabulary_keeps_its_ids_and_no_padding() -> None:
    found = unify([BASE, ONE], ONE)
    assert (found.tokens, found.n_rows) == (ONE.tokens, 4)
    base, one = tables(BASE, ONE)
    lent = align(base, found.maps[0], [base, one].__getitem__)
    assert torch.equal(lent, torch.stack([base[1], base[0], base[2], one[3]]))
    assert torch.equal(align(one, found.maps[1], [base, one].__getitem__), one[:4])
    assert (found.n_padding_dropped, found.dropped, found.unknown) == (2, (), ())


def test_a_token_that_no_model_has_is_zero_and_said() -> None:
    alone = Vocabulary("alone", {"q": 0, "c": 1, "x": 3}, 0)
    found = unify([BASE, ONE], alone)
    base, one = tables(BASE, ONE)
    zero = torch.zeros(2)
    expected = torch.stack([zero, base[2], zero, one[3]])
    assert torch.equal(align(base, found.maps[0], [base, one].__getitem__), expected)
    assert (found.unknown, found.dropped) == (("q",), ("a", "b"))


@pytest.mark.parametrize("forced", [False, True])
def test_a_given_row_is_for_models_that_lack_the_token_or_for_all(forced: bool) -> None:
    given = {"x": Given(((0, 1),), forced), "a": Given((), forced), "new": Given(((1, 2),))}
    found = unify([BASE, ONE], "union", given=given)
    assert (found.new, found.made, found.tokens["new"]) == (("x",), ("new",), 4)
    base, one = tables(BASE, ONE)
    theirs = align(one, found.maps[1], [base, one].__getitem__)
    ours = align(base, found.maps[0], [base, one].__getitem__)
    zero = torch.zeros(2)
    assert torch.equal(ours[3:], torch.stack([base[1], one[2]]))
    assert torch.equal(ours[0], zero if forced else base[0])
    assert torch.equal(theirs[0], zero if forced else one[1])
    assert torch.equal(theirs[3], base[1] if forced else one[3])
    assert torch.equal(theirs[4], one[2])


def test_padding_comes_last_and_is_the_mean_of_the_models_own_rows() -> None:
    found = unify([BASE, ONE], "base", multiple_of=4)
    assert (found.n_rows, found.n_padding_dropped) == (4, 2)
    base, one = (table.bfloat16() for table in tables(BASE, ONE))
    padded = align(one, found.maps[1], [base, one].__getitem__)
    assert padded.dtype == torch.float32
    torch.testing.assert_close(padded[3], one[:3].float().mean(0))
    bias = align(one[:, 0], found.maps[1], [base[:, 0], one[:, 0]].__getitem__)
    assert torch.equal(bias, padded[:, 0])
    assert unify([BASE, ONE], "base", multiple_of=3).maps[0].n_padding == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    options: dict[str, Any] = {"num_hidden_layers": 1}
    checkpoint(folder / "base", 0, 40, "<b>", **options)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    tokenizer.chat_template = "base{{ messages }}"
    tokenizer.save_pretrained(folder / "base")
    words = tiny.WORDS[::-1]
    checkpoint(folder / "one", 1, 36, "<x>", "<b>", "y", words=words, eos_token_id=9, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder / "one")
    tokenizer.chat_template = "one{{ messages }}"
    tokenizer.save_pretrained(folder / "one")
    ids = {"eos_token_id": [2, 4, 32], "pad_token_id": 35, "max_length": 4, "bos_token_id": None}
    (folder / "base" / "generation_config.json").write_text(json.dumps(ids))
    tiny.tokenizer(["w3", *tiny.WORDS[9:]]).save_pretrained(folder / "alone")
    return folder


def recipe(folder: Path, end: str) -> Recipe:
    text = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: one, parameters: "
    return read_recipe(f"{text}{{weight: 0.5}}}}]\n{end}\n").resolved(folder)


def test_the_export_has_the_tokenizer_template_and_ids_of_the_model_that_is_named(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    named = recipe(folder, "tokenizer_source: one")
    parents = Parents.of(named)
    write_checkpoint(named, out, parents=parents)
    one, merged = (AutoTokenizer.from_pretrained(path) for path in (folder / "one", out))
    assert merged.get_vocab() == one.get_vocab() == tokenizer_of(parents).get_vocab()
    assert (out / "chat_template.jinja").read_text() == "one{{ messages }}"
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"]) == (35, 2)
    # w0 and <b> have other ids here, and row 35 of the base is no token's
    ids = json.loads((out / "generation_config.json").read_text())
    assert ids["eos_token_id"] == [2, 31, 33]
    assert ids["pad_token_id"] == 3
    assert (ids["max_length"], ids["bos_token_id"]) == (4, None)
    assert plan_merge(read_recipe((out / "mergekit_config.yml").read_text()).resolved(out), parents)


def test_a_tokenizer_of_no_model_is_taken_without_its_weights(folder: Path, tmp_path: Path) -> None:
    alone = recipe(folder, "tokenizer_source: alone")
    said: list[str] = []
    write_checkpoint(alone, tmp_path / "out", say=said.append)
    merged = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert merged.get_vocab() == AutoTokenizer.from_pretrained(folder / "alone").get_vocab()
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
    assert any("that it lacks, dropped from the other models" in line for line in said)
    ids = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (ids["eos_token_id"], ids["pad_token_id"]) == ([2], None)


def test_new_tokens_are_in_the_tokenizer_and_scored_with(folder: Path, tmp_path: Path) -> None:
    block = "tokenizer: {source: base, tokens: {<new>: {source: {kind: zero}}, w1: {source: one}}}"
    made = recipe(folder, block)
    parents = Parents.of(made)
    assert tokenizer_of(parents)("w1 <new>").input_ids == [5, 33]
    assert parents.alignment.vocab_size == 40
    for ref in parents.models:
        assert not parents.read(ref, NAME)[33].any()
    (note,) = (line for line in parents.alignment.notes if "added" in line)
    assert note == "tokenizer_source base: 1 token ('<new>') that no tokenizer has, added to it"


OF = "tokens: {w1: {source: {kind: model_token, model: one, "
BAD = {
    "tokens: {w1: {source: alone}}": r"'w1' can only have a row of a model that is merged, got ",
    "tokens: {<x>: {source: base}}": r"'<x>' needs a row .* has no row for '<x>' among its 40; ",
    OF + "token_id: 36}}}": "no row 36 among its 36; name another model or token",
    OF + "token: q}}}": "no row for 'q' among its 36",
    "source: empty": r"empty: no tokenizer that transformers can load",
}


@pytest.mark.parametrize(("said", "message"), BAD.items())
def test_a_row_that_is_not_there_is_one_line(folder: Path, said: str, message: str) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message) as caught:
        Parents.of(recipe(folder, f"tokenizer: {{{said}}}"))
    assert "\n" not in str(caught.value)


def test_a_recipe_that_means_another_tokenizer_is_refused(folder: Path) -> None:
    named = recipe(folder, "tokenizer_source: one")
    parents = Parents.of(named)
    plan_merge(named, parents)
    for end in ("tokenizer_source: base", "tokenizer: {source: one, pad_to_multiple_of: 64}"):
        with pytest.raises(RecipeError, match=r"got tokenizer_source .* instead of .*one; open"):
            plan_merge(recipe(folder, end), parents)


def test_a_tokenizer_that_looks_a_token_up_without_end_is_one_line(tmp_path: Path) -> None:
    """As where its unknown token is empty, and so itself unknown."""
    tiny.tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unk_token": ""}))
    with pytest.raises(InputError, match="no tokenizer that transformers can load: maximum"):
        load_tokenizer(tmp_path)
    assert TokenizerSettings.of(tmp_path) is None
