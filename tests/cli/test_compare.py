"""The command compare: what it shows and writes, and what it refuses in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mergesearch import SearchSpace, compare, search
from mergesearch.diagnosis import FILE, Diagnosis
from mergesearch.errors import InputError
from mergesearch.runs import Record
from tests.cli.conftest import Cli
from tests.cli.test_bad_input import refused, snapshot


def change(family: Path, **changes: Any) -> Path:
    """The family's space with some keys changed; those of None left out."""
    path = family / "space.yaml"
    data = {**yaml.safe_load(path.read_text()), **changes}
    data = {key: value for key, value in data.items() if value is not None}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def test_without_a_run_it_compares_the_weights_and_writes_nothing(family: Path, cli: Cli) -> None:
    before = snapshot(family)
    said = cli("compare", family / "space.yaml", "--device", "cpu")
    assert said.code == 0
    assert "## What fine-tuning changed" in said.out and "| mlp, layers 2 to 3 " in said.out
    assert "who answers what" not in said.out
    assert "compared 100% of" in said.err
    assert snapshot(family) == before


def test_with_a_run_the_scores_are_those_of_a_later_search(family: Path, cli: Cli) -> None:
    run = family / "run"
    said = cli(
        "compare", family / "space.yaml", "--out", run, "--device", "cpu", "--format", "json"
    )
    assert said.code == 0
    found = Diagnosis.from_json(said.out)
    assert found == Diagnosis.of_run(run)
    assert [of.task for of in found.answers] == ["first", "second"]
    known = Record(run).documents.n_added, len((run / "documents.bin").read_bytes())
    again = compare(SearchSpace.load(family / "space.yaml"), run, device="cpu")
    assert again == found  # and nothing was scored
    assert known == (0, len((run / "documents.bin").read_bytes()))
    search(SearchSpace.load(family / "space.yaml"), run, device="cpu")
    parents = [t for t in Record(run).trials if t.method == "linear (one)"]
    assert all(trial.n_documents == 0 for trial in parents)


def test_the_best_of_all_is_the_union_of_right_answers(family: Path) -> None:
    found = compare(SearchSpace.load(family / "space.yaml"), family / "run", device="cpu")
    for of in found.answers:
        assert of.best is not None and of.leader is not None
        best = of.values[of.leader]
        assert best is not None and of.best == pytest.approx(
            best + sum(of.ahead[name][of.leader] for name in found.parents if name != of.leader)
        )


def test_markdown_and_the_terminal_say_the_same(family: Path, cli: Cli) -> None:
    plain = cli("compare", family / "space.yaml", "--device", "cpu")
    assert cli("compare", family / "space.yaml", "--format", "markdown").out == plain.out


def test_what_the_models_differ_in_is_said(family: Path, cli: Cli) -> None:
    path = family / "models" / "two" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-5}))
    assert "- rms_norm_eps is " in cli("compare", family / "space.yaml").out


def test_without_a_base_answers_are_compared_and_weights_are_not(family: Path, cli: Cli) -> None:
    space = change(family, base=None, methods={"linear": {}})
    line = refused(cli("compare", space))
    assert "deltas are from a base" in line and "--out RUN" in line
    found = compare(SearchSpace.load(space), family / "run", device="cpu")
    assert found.parts == () and len(found.answers) == 2
    assert set(found.answers[0].values) == {"one", "two"}


def test_without_a_suite_there_are_no_answers(family: Path, cli: Cli) -> None:
    space = change(family, suite=None)
    before = snapshot(family)
    assert cli("compare", space).code == 0
    assert "names no suite" in refused(cli("compare", space, "--out", family / "run"))
    assert snapshot(family) == before


def test_one_parent_is_compared_with_its_base(family: Path, cli: Cli) -> None:
    space = change(family, parents={"one": "models/one"}, methods={"task_arithmetic": {}})
    said = cli("compare", space, "--out", family / "run")
    assert said.code == 0
    assert "What fine-tuning changed" in said.out
    assert "lie to each other" not in said.out and "who answers what" not in said.out


def test_a_genome_file_is_a_space(family: Path, cli: Cli) -> None:
    (family / "genome.yaml").write_text(
        "genome:\n  models: [models/one, models/two]\n  merge_method: ties\n"
        "  base_model: models/base\ntasks: [first]\ninclude_path: tasks\n"
    )
    assert cli("compare", family / "genome.yaml").code == 0


def test_weights_that_are_not_finite_are_named(family: Path, cli: Cli) -> None:
    path = family / "models" / "two" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    said = cli("compare", family / "space.yaml")
    assert said.code != 0 and said.err.splitlines()[-1].startswith("mergesearch: ")
    assert "model.layers.0.mlp.up_proj.weight has NaN or infinite entries" in said.err


def test_another_runs_folder_is_refused(family: Path, cli: Cli) -> None:
    run = family / "run"
    assert cli("compare", family / "space.yaml", "--out", run).code == 0
    before = snapshot(run)
    space = change(family, granularity={"blocks": 4})
    assert "was made by another space" in refused(cli("compare", space, "--out", run))
    assert snapshot(run) == before


def test_a_damaged_diagnosis_is_one_line(family: Path) -> None:
    run = family / "run"
    run.mkdir()
    assert Diagnosis.of_run(run) is None
    (run / FILE).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        Diagnosis.of_run(run)
    (run / FILE).write_text('{"parents": 3}')
    with pytest.raises(InputError, match="parents"):
        Diagnosis.of_run(run)


def test_a_missing_model_is_one_line(family: Path, cli: Cli) -> None:
    shutil.rmtree(family / "models" / "two")
    assert "models/two" in refused(cli("compare", family / "space.yaml"))
