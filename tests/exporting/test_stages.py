"""Several documents in one file are stages of one result."""

import logging
from pathlib import Path

import pytest
import torch

from mergesearch import merge
from mergesearch.api import recipe_of
from mergesearch.errors import CandidateError, InputError
from mergesearch.parents import MemoryPlan
from mergesearch.recipe import load_stages, read_recipe
from tests import tiny
from tests.parity.families import changed, weights

PAIR = """\
name: pair
merge_method: linear
models: [{model: one, parameters: {weight: 1}}, {model: two, parameters: {weight: 3}}]
"""
RESULT = """\
merge_method: slerp
base_model: one
models: [{model: one}, {model: pair}]
parameters: {t: 0.5}
"""
COPY = "name: {}\nmerge_method: passthrough\nmodels: [{{model: {}}}]\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    for i, name in enumerate(("one", "two")):
        tiny.llama(folder / name, i)
    return folder


def file(models: Path, *documents: str) -> Path:
    path = models / "stages.yaml"
    path.write_text("---\n".join(documents))
    return path


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_stages_are_what_their_merges_one_by_one_are(models: Path, tmp_path: Path) -> None:
    said: list[str] = []
    digest = merge(file(models, RESULT, PAIR), tmp_path / "out", say=said.append)
    assert entries(tmp_path) == {"out"}
    assert any(line.startswith("'pair': memory plan") for line in said)
    by_hand = tmp_path / "by hand"
    merge(read_recipe(PAIR).resolved(models), by_hand / "pair")
    second = read_recipe(RESULT.replace("one", str(models / "one"))).resolved(by_hand)
    assert merge(second, by_hand / "out") == digest


@pytest.mark.parametrize("fits", [True, False])
def test_results_that_others_need_are_in_memory_where_they_fit(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    if not fits:
        monkeypatch.setattr(MemoryPlan, "spare", lambda plan, memory: 30_000)
    said: list[str] = []
    seen: list[list[Path]] = []

    def say(line: str) -> None:
        said.append(line)
        if "tensors: " not in line:  # which is said once all is written
            seen.append(list(tmp_path.rglob("*.safetensors")))

    chain = (PAIR, COPY.format("copy", "pair"), RESULT.replace("pair", "copy"))
    digest = merge(file(models, *chain), tmp_path / "out", say=say)
    assert digest == merge(file(models, PAIR, RESULT), tmp_path / "again")
    lines = [line for line in said if "the result lies on disk while it is needed" in line]
    if fits:
        assert not any(seen) and not lines
        assert any(line.startswith("'pair': ") and "the result " in line for line in said)
    else:
        assert [len(files) for files in (seen[0], seen[-1])] == [0, 1]  # the first goes early
        assert lines[0].startswith("'pair': ") and "more than half of the 0.00 GB" in lines[0]
        assert len(lines) == 2


def test_the_file_beside_the_weights_makes_them_again(models: Path, tmp_path: Path) -> None:
    digest = merge(file(models, PAIR, RESULT), tmp_path / "out")
    text = (tmp_path / "out" / "mergekit_config.yml").read_text()
    assert text.startswith("name: pair\n") and "- model: pair\n" in text
    assert ".stages" not in text
    assert merge(tmp_path / "out" / "mergekit_config.yml", tmp_path / "again") == digest
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- `one`\n- `two`\n" in card and "- `pair`" not in card
    assert "`mergekit-multi`" in card


def test_the_last_named_document_is_the_result_and_takes_the_dtype(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    documents = (PAIR, COPY.format("spare", "two"), COPY.format("end", "pair"))
    with caplog.at_level(logging.WARNING):
        merge(file(models, *documents), tmp_path / "out", dtype="float16")
    assert "'spare' is left out: the result does not need it" in caplog.text
    tensors = weights(tmp_path / "out")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    name = "model.norm.weight"
    one, two = (weights(models / which)[name] for which in ("one", "two"))
    torch.testing.assert_close(tensors[name], (0.25 * one + 0.75 * two).half())


def test_empty_documents_are_none(models: Path) -> None:
    text = "---\n" + PAIR + "---\n# nothing\n---\n"
    assert read_recipe(text) == read_recipe(PAIR)
    assert len(load_stages(file(models, text))) == 1


BAD = {
    "twice": ((PAIR, PAIR, RESULT), "one document at most may be of the name 'pair', got 2; name"),
    "unnamed": ((RESULT, RESULT), "one document at most may be without a name, got 2"),
    "itself": ((COPY.format("a", "a"), RESULT), "in a circle: 'a' needs 'a'"),
    "circle": (
        (COPY.format("a", "b"), COPY.format("b", "a"), COPY.format("c", "b")),
        "the documents go in a circle: '[ab]' needs '[ab]' needs '[ab]'",
    ),
    "unknown": (
        (PAIR.replace("name: pair", "name: pear"), RESULT),
        "no folder 'pair', and no",
    ),
    "a number": ((PAIR.replace("name: pair", "name: 7"), RESULT), "document 1: name must be a tex"),
    "bad key": ((PAIR, RESULT + "merge_methods: x\n"), "document 2: unknown key 'merge_methods'"),
    "not YAML": ((PAIR, "a: ["), "not valid YAML"),
    "no mapping": ((PAIR, "- a"), "document 2: must be a mapping of keys, got list"),
}


@pytest.mark.parametrize(("documents", "message"), BAD.values(), ids=BAD)
def test_bad_stages_are_one_line_and_nothing_is_written(
    models: Path, tmp_path: Path, documents: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        merge(file(models, *documents), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not entries(tmp_path)


def test_a_stage_that_fails_leaves_nothing(models: Path, tmp_path: Path) -> None:
    changed(models / "two", tmp_path / "nan", lambda name, tensor: tensor * float("nan"))
    bad = f"merge_method: linear\nmodels: [{{model: pair}}, {{model: {tmp_path / 'nan'}}}]\n"
    with pytest.raises(CandidateError):
        merge(file(models, PAIR, bad + "parameters: {weight: 1}\n"), tmp_path / "out")
    assert entries(tmp_path) == {"nan"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        merge(file(models, PAIR, RESULT), tmp_path / "out")


def test_what_needs_one_recipe_refuses_several(models: Path) -> None:
    with pytest.raises(InputError, match=r"yaml: 2 documents, as mergekit-multi has them, and one"):
        recipe_of(file(models, PAIR, RESULT))
