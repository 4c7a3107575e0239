"""mergekit 0.1.5 gives the rows that we give where a recipe says whose tokenizer it wants.

A tokenizer that is named keeps its ids there, too, so that whole tensors are compared; those of a
union are compared by token, as mergekit's order of new tokens changes from run to run.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoTokenizer

from mergesearch import merge
from mergesearch.recipe import read_recipe, write_recipe
from tests import tiny
from tests.parity.families import weights
from tests.parity.peer import needs_mergekit, run_mergekit
from tests.parity.test_vocabulary import (
    LINEAR,
    ROWS,
    TASK_ARITHMETIC,
    assert_close,
    checkpoint,
    merged_twice,
    vocabulary,
)

pytestmark = needs_mergekit

# Of its own row in one and of none in another model; forced or not; new to all of them.
TOKENS = """
  tokens:
    <x>: {source: one, force: true}
    <z>: {source: {kind: model_token, model: base, token: w7}}
    y: {source: {kind: zero}}
    w3: {source: {kind: zero}, force: true}
    w5: {source: {kind: model_token, model: two, token_id: 9}, force: true}
    w6: {source: one}
    <new>: {source: {kind: model_token, model: one, token: w1}}
    newer: {source: {kind: zero}}
"""
# The tokens that the base has.
OWN_TOKENS = """
  tokens:
    w3: {source: {kind: zero}, force: true}
    w5: {source: {kind: model_token, model: two, token: extra}, force: true}
    <b>: {source: {kind: model_token, model: one, token: <x>}}
"""
ENDS = {
    "named": "tokenizer_source: one",
    "another named": "tokenizer: {source: two}",
    "of no model": "tokenizer_source: alone",
    "base, tokens": "tokenizer:\n  source: base" + OWN_TOKENS,
    "union, tokens": "tokenizer:\n  source: union" + TOKENS,
    "named, tokens": "tokenizer:\n  source: two\n  pad_to_multiple_of: 7" + TOKENS,
    "padded": "tokenizer: {source: base, pad_to_multiple_of: 9}",
    "named, padded": "tokenizer: {source: one, pad_to_multiple_of: 16}",
    "padded by none": "tokenizer: {source: two, pad_to_multiple_of: 1}",
}
RECIPES = {
    (method, end): text + ENDS[end]
    for method, text in (("task_arithmetic", TASK_ARITHMETIC), ("linear", LINEAR))
    for end in ENDS
    if method != "linear" or end not in ("base, tokens", "padded")  # which mean a base
}
# A union without a base: mergekit extends the tokenizer of the model that its set has first, by the
# hashes of paths. The tokens that this lacks become added ones, which are found inside of words.
STARTS_FROM_ANY = ("linear", "union, tokens")
TEXT = "w1 w27<b> w3 <x> y <z> extra <new> newer w9 nowhere <nowhere>"


def tokenizer_alone(folder: Path) -> None:
    """A tokenizer without a model, some of its tokens in no model."""
    tokenizer = tiny.tokenizer(["nowhere", *tiny.WORDS[3:20:2], "extra"])
    tokenizer.add_tokens([AddedToken("<b>", special=True), AddedToken("<nowhere>")])
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, Path]]:
    """The folders that each recipe gave, here and there."""
    folder = tmp_path_factory.mktemp("tokenizers")
    options: dict[str, Any] = {"tie_word_embeddings": False}
    checkpoint(folder / "base", 0, 40, "<b>", **options)
    checkpoint(folder / "one", 1, 36, "<x>", "<b>", "y", **options)
    words = [*tiny.WORDS[:4:-1], "w3", "extra"]
    checkpoint(folder / "two", 2, 40, "y", "<z>", words=words, **options)
    tokenizer_alone(folder / "alone")
    recipes = {key: read_recipe(text).resolved(folder) for key, text in RECIPES.items()}
    return merged_twice(recipes, folder / "out")


@pytest.mark.parametrize("case", RECIPES, ids=", ".join)
def test_every_token_has_the_row_that_mergekit_gives_it(
    ran: dict[tuple[str, str], tuple[Path, Path]], case: tuple[str, str]
) -> None:
    ours, theirs = (weights(folder) for folder in ran[case])
    ids, their_ids = (vocabulary(folder) for folder in ran[case])
    assert ids.keys() == their_ids.keys()
    assert ours.keys() == theirs.keys()
    by_token = case[1].startswith(("union", "base"))
    if not by_token:
        assert ids == their_ids
    for name, expected in theirs.items():
        merged = ours[name]
        if name in ROWS and by_token:  # we keep the base's padding
            merged = merged[list(ids.values())]
            expected = expected[[their_ids[token] for token in ids]]
        assert_close(merged, expected)
    if not by_token:
        sizes = [json.loads((f / "config.json").read_text())["vocab_size"] for f in ran[case]]
        assert sizes[0] == sizes[1] == len(ours[ROWS[0]])


@pytest.mark.parametrize("case", RECIPES, ids=", ".join)
def test_the_tokenizer_is_mergekits(
    ran: dict[tuple[str, str], tuple[Path, Path]], case: tuple[str, str]
) -> None:
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in ran[case])
    # where mergekit starts from any of the models, w2 may be a token that it adds, and splits w27
    text = TEXT.replace("w27", "w9") if case == STARTS_FROM_ANY else TEXT
    assert ours.tokenize(text) == theirs.tokenize(text)
    assert ours.special_tokens_map == theirs.special_tokens_map
    added = [
        {
            token.content: token.special
            for token in one.added_tokens_decoder.values()
            if token.special or case != STARTS_FROM_ANY
        }
        for one in (ours, theirs)
    ]
    assert added[0] == added[1]


def test_padding_is_the_mean_of_the_tokens(
    ran: dict[tuple[str, str], tuple[Path, Path]],
) -> None:
    table = weights(ran["linear", "named, padded"][0])[ROWS[0]]
    assert len(table) == 48
    torch.testing.assert_close(table[36:], table[:36].mean(0).expand(12, -1))


# Where the two differ on purpose

ALONE = "merge_method: linear\nbase_model: {0}\nmodels: [{{model: {0}}}, {{model: two}}]\n"
NEW = "tokenizer: {source: base, tokens: {<new>: {source: {kind: zero}}}}"
DIFFERENT = {
    "ids": ALONE.format("fifth") + "tokenizer_source: two",
    "padding": ALONE.format("base") + NEW,
    "no padding": ALONE.format("fifth") + NEW,
    "no source": ALONE.format("base") + "tokenizer: {tokens: {y: {}}}",
    "no source, forced": ALONE.format("base") + "tokenizer: {tokens: {w9: {force: true}}}",
}


@pytest.fixture(scope="module")
def different(
    ran: dict[tuple[str, str], tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path, str]]:
    """The folders that each recipe gave, here and there, and what stopped mergekit."""
    models = next(iter(ran.values()))[0].parents[1]
    # without padding, and ended by the token w5
    checkpoint(models / "fifth", 3, 33, "<b>", eos_token_id=9, tie_word_embeddings=False)
    folder = tmp_path_factory.mktemp("different") / "out"
    recipes = {
        name: read_recipe(text + "\nparameters: {weight: 1}\ndtype: float32").resolved(models)
        for name, text in DIFFERENT.items()
    }
    theirs = run_mergekit([write_recipe(r) for r in recipes.values()], folder)
    for name, recipe in recipes.items():
        merge(recipe, folder / name)
    return {name: (folder / name, *theirs[i]) for i, name in enumerate(recipes)}


def row(folder: Path, token: str) -> Tensor:
    return weights(folder)[ROWS[0]][vocabulary(folder)[token]]


def test_ids_of_special_tokens_where_tokenizer_source_names_a_model(
    different: dict[str, tuple[Path, Path, str]],
) -> None:
    ours, theirs, error = different["ids"]
    assert not error
    sets = [json.loads((folder / "config.json").read_text()) for folder in (ours, theirs)]
    assert [settings["eos_token_id"] for settings in sets] == [26, 9]
    tokens = AutoTokenizer.from_pretrained(ours).convert_ids_to_tokens([26, 9])
    assert tokens == ["w5", "w22"]


def test_tokens_that_the_base_lacks(different: dict[str, tuple[Path, Path, str]]) -> None:
    ours, theirs, error = different["padding"]
    assert not error
    assert not row(ours, "<new>").any()
    assert row(theirs, "<new>").any()
    ours, _, error = different["no padding"]
    assert "KeyError" in error
    assert not row(ours, "<new>").any()


def test_tokens_without_a_source(
    different: dict[str, tuple[Path, Path, str]], ran: dict[tuple[str, str], tuple[Path, Path]]
) -> None:
    models = next(iter(ran.values()))[0].parents[1]
    for name, token, lender in (("no source", "y", "two"), ("no source, forced", "w9", "base")):
        ours, _, error = different[name]
        assert "NotImplementedError" in error
        torch.testing.assert_close(row(ours, token), row(models / lender, token))
