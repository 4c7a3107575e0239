"""mergekit 0.1.5 gives every token of our union and of our base the row that we give it.

Rows are compared by their tokens: mergekit orders models and plain tokens by hashes that change
from run to run, so that the ids of a union's new tokens do too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoTokenizer

from mergesearch import merge
from mergesearch.recipe import Recipe, read_recipe, write_recipe
from tests import tiny
from tests.parity.families import weights
from tests.parity.peer import needs_mergekit, run_mergekit

pytestmark = needs_mergekit

TASK_ARITHMETIC = """
merge_method: task_arithmetic
base_model: base
models:
  - {model: one, parameters: {weight: 0.7}}
  - {model: two, parameters: {weight: [0.2, -0.4]}}
dtype: float32
"""
SLERP = """
merge_method: slerp
base_model: base
models: [{model: base}, {model: one}]
parameters: {t: 0.3}
dtype: float32
tokenizer_source: """
# The base at weight 0, as the soups of a space are written.
SOUP = """
merge_method: linear
base_model: base
models:
  - {model: base, parameters: {weight: 0}}
  - {model: one, parameters: {weight: 1}}
  - {model: two, parameters: {weight: 1}}
dtype: float32
tokenizer_source: """
# No base: a token that a model lacks is the mean of those that have it.
LINEAR = """
merge_method: linear
models:
  - {model: base, parameters: {weight: 0.5}}
  - {model: one, parameters: {weight: 0.3}}
  - {model: two, parameters: {weight: 0.2}}
dtype: float32
"""
RECIPES = {
    **{
        f"task arithmetic, {s}": f"{TASK_ARITHMETIC}tokenizer_source: {s}"
        for s in ("base", "union")
    },
    **{f"slerp, {source}": SLERP + source for source in ("base", "union")},
    **{f"soup, {source}": SOUP + source for source in ("base", "union")},
    "linear, union": LINEAR + "tokenizer_source: union\n",
}
# The rows of the base, which has 33 tokens, and what else a family's models are.
FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "tied": (33, {}),
    "untied": (40, {"tie_word_embeddings": False}),
    "half": (40, {"dtype": torch.bfloat16}),
}
CASES = [
    (family, name)
    for family in FAMILIES
    for name in RECIPES
    # slerp's angle is between whole tensors, and `base` keeps padding that mergekit drops
    if family == "tied" or name != "slerp, base"
]
ROWS = ("model.embed_tokens.weight", "lm_head.weight")


def checkpoint(folder: Path, seed: int, n_rows: int, *added: str, **changes: Any) -> None:
    """A model of its own whose tokenizer has added tokens; those in brackets are special."""
    words = changes.pop("words", tiny.WORDS)
    tiny.llama(folder, seed, vocab_size=n_rows, num_hidden_layers=2, **changes)
    tokenizer = tiny.tokenizer(words)
    for token in added:
        special = token.startswith("<")
        tokenizer.add_tokens(AddedToken(token, special=special, normalized=False))
    tokenizer.save_pretrained(folder)


def merged_twice(
    recipes: Mapping[tuple[str, str], Recipe], out: Path
) -> dict[tuple[str, str], tuple[Path, Path]]:
    """Merge recipes here and by mergekit, and give both folders of each."""
    theirs = run_mergekit([write_recipe(recipe) for recipe in recipes.values()], out)
    found = {}
    for i, ((case, recipe), (path, error)) in enumerate(zip(recipes.items(), theirs, strict=True)):
        assert not error, (case, error)
        merge(recipe, out / f"ours-{i}")
        found[case] = out / f"ours-{i}", path
    return found


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, Path]]:
    """The folders that each recipe gave, here and there."""
    folder = tmp_path_factory.mktemp("vocabularies")
    for family, (n_rows, options) in FAMILIES.items():
        checkpoint(folder / family / "base", 0, n_rows, "<b>", **options)
        checkpoint(folder / family / "one", 1, 36, "<x>", "<b>", "y", **options)
        words = [*tiny.WORDS[:4:-1], "extra"]  # 24 of the 28, their ids in reverse
        checkpoint(folder / family / "two", 2, 31, "y", "<z>", words=words, **options)
    recipes = {
        (family, name): read_recipe(RECIPES[name]).resolved(folder / family)
        for family, name in CASES
    }
    return merged_twice(recipes, folder / "out")


def vocabulary(folder: Path) -> dict[str, int]:
    return AutoTokenizer.from_pretrained(folder).get_vocab()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= 1e-6 * float(theirs.abs().max())


@pytest.mark.parametrize(("family", "name"), CASES)
def test_every_token_has_the_row_that_mergekit_gives_it(
    ran: dict[tuple[str, str], tuple[Path, Path]], family: str, name: str
) -> None:
    ours, theirs = (weights(folder) for folder in ran[family, name])
    ids, their_ids = (vocabulary(folder) for folder in ran[family, name])
    assert ids.keys() == their_ids.keys()
    assert ours.keys() == theirs.keys()
    for tensor, expected in theirs.items():
        merged = ours[tensor]
        if tensor in ROWS:
            merged = merged[list(ids.values())]
            expected = expected[[their_ids[token] for token in ids]]
        assert_close(merged, expected)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_base_keeps_its_ids_and_the_union_has_as_many_rows_as_mergekits(
    ran: dict[tuple[str, str], tuple[Path, Path]], family: str, name: str
) -> None:
    ours, theirs = ran[family, name]
    sizes = [
        json.loads((folder / "config.json").read_text())["vocab_size"] for folder in (ours, theirs)
    ]
    assert sizes == [len(weights(folder)[ROWS[0]]) for folder in (ours, theirs)]
    base = vocabulary(ours.parents[1] / family / "base")
    assert base.items() <= vocabulary(ours).items()
    if name.endswith("union"):
        assert sizes[0] == sizes[1] == len(vocabulary(ours))
    else:  # where mergekit drops the rows that belong to no token
        assert sizes == [FAMILIES[family][0], len(base)]
        padding = weights(ours.parents[1] / family / "base")[ROWS[0]][len(base) :].float()
        torch.testing.assert_close(weights(ours)[ROWS[0]][len(base) :], padding)
