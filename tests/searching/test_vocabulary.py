"""A search over models whose vocabularies differ: one tokenizer, and what is scored is exported."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch import export, merge
from mergesearch.api import search
from mergesearch.errors import InputError
from mergesearch.runs import Record
from mergesearch.searching.setup import prepare
from tests import tiny
from tests.searching.watch import RecordingObserver, load

METHODS: dict[str, Any] = {"linear": {}, "task_arithmetic": {}, "greedy_soup": {}}


@pytest.fixture
def family(family: Path) -> Path:
    """The family with a parent that has one more token, and padding."""
    two = family / "models" / "two"
    tiny.llama(two, 2, vocab_size=40)
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(AddedToken("<two>", special=True))
    tokenizer.save_pretrained(two)
    return family


@pytest.mark.parametrize(("source", "n_rows"), [("base", 32), ("union", 33)])
def test_what_is_scored_in_the_merged_vocabulary_is_what_is_exported(
    family: Path, source: str, n_rows: int
) -> None:
    space = load(family, methods=METHODS, tokenizer_source=source, search={"trials": 8})
    observer = RecordingObserver()
    search(space, family / "run", observer=observer)
    record = Record(family / "run", writable=False)
    assert [trial.error for trial in record.trials] == [None] * 8
    assert {trial.method.split()[0] for trial in record.trials} == set(METHODS)
    assert any(line.startswith(f"tokenizer_source {source}: 1 token") for line in observer.stages)
    for trial in record.trials:  # each is checked against the hash of what was scored
        (folder,) = export(family / "run", trial=trial.number)
        config = json.loads((folder / "config.json").read_text())
        assert config["vocab_size"] == n_rows
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape == (n_rows, 16)
    assert ("<two>" in tokenizer.get_vocab()) == (source == "union")
    assert f"tokenizer_source {source}: 1 token" in (folder / "README.md").read_text()


def test_candidates_have_the_tokenizer_of_a_model_that_is_named(family: Path) -> None:
    space = load(family, methods={"ties": {}}, tokenizer_source="two", search={"trials": 3})
    assert space.tokenizer_source == space.parents["two"]
    search(space, family / "run")
    search(load(family, methods={"ties": {}}, tokenizer_source="models/two", search={"trials": 4}),
           family / "run")  # fmt: skip
    record = Record(family / "run", writable=False)
    assert [trial.error for trial in record.trials] == [None] * 4
    (folder,) = export(family / "run")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape == (33, 16)
    assert "<two>" in AutoTokenizer.from_pretrained(folder).get_vocab()


def test_merging_says_what_it_drops_before_it_begins(family: Path) -> None:
    text = "merge_method: task_arithmetic\nbase_model: models/base\ntokenizer: {source: base}\n"
    (family / "r.yaml").write_text(
        f"{text}models: [{{model: models/two, parameters: {{weight: 1}}}}]"
    )
    said: list[str] = []
    merge(family / "r.yaml", family / "out", say=said.append)
    assert said[0] == (
        "tokenizer_source base: 1 token ('<two>') that the base lacks, dropped from the other "
        "models; set tokenizer_source to union to keep all"
    )
    assert said[1].startswith("memory plan: peak ")


def test_a_space_that_says_nothing_refuses_the_difference(family: Path) -> None:
    with pytest.raises(InputError, match=r"first at token '<two>', id 32; set tokenizer_source to"):
        prepare(load(family))
