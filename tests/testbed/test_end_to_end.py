"""A search, a soup and an export on a real model family, where it lies beside the project."""

import json
from pathlib import Path

import pytest
import torch

from mergesearch import SearchSpace, evaluate, export, load_suite, search, soup
from mergesearch.report import entries_of, verdict
from mergesearch.runs import Record

SPACE = """\
base: base
parents:
  sentiment: base+adapters/sst2
  questions: base+adapters/trec
granularity: {blocks: 2}
methods:
  task_arithmetic: {}
  ties: {}
suite: suite.yaml
search: {trials: 6}
"""
SUITE = """\
include_path: small
search:
  - {task: sst2, metric: acc}
  - {task: trec, metric: acc}
held_out:
  - {task: subj, metric: acc}
"""


@pytest.fixture(scope="module")
def bed(testbed: Path) -> Path:
    """The test bed, with tasks of 8 documents each."""
    folder = testbed
    (folder / "small").mkdir()
    for skill in ("sst2", "trec", "subj"):
        task = json.loads((folder / "tasks" / f"{skill}_dev.yaml").read_text())
        data = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()[:8]
        (folder / "small" / f"{skill}.jsonl").write_text("\n".join(data) + "\n")
        task |= {"task": skill, "dataset_kwargs": {"data_files": {"test": f"{skill}.jsonl"}}}
        (folder / "small" / f"{skill}.yaml").write_text(json.dumps(task))
    (folder / "space.yaml").write_text(SPACE)
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def test_an_expert_scores_what_the_test_bed_says(bed: Path) -> None:
    (bed / "trec.yaml").write_text(
        "include_path: tasks\nsearch:\n  - {task: trec_test, metric: acc, limit: 200}\n"
    )
    found = evaluate(f"{bed}/base+{bed}/adapters/trec", load_suite(bed / "trec.yaml"), device="cpu")
    # 0.935 in its table, by an argmax over first tokens; a document may tip at float precision
    assert found.scores.total == pytest.approx(0.935, abs=0.01)


def test_search_soup_and_export_end_in_a_model_that_transformers_runs(bed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    space = SearchSpace.load(bed / "space.yaml")
    run = bed / "run"
    winner = search(space, run, device="cpu").best
    made = soup(space, run, device="cpu").best
    assert len(Record(run, writable=False).trials) == 6
    labels = {entry.label for entry in entries_of(run)}
    assert {"winner", "base", "sentiment", "questions", "uniform soup", "greedy soup"} <= labels
    assert "beat" in verdict(entries_of(run)) or "WORSE" in verdict(entries_of(run))
    assert winner.total >= made.total  # both experts and their mean are starting points

    (folder,) = export(run)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16  # as the base is stored
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("Review: a joy from start to finish .\nSentiment:", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=2, do_sample=False)[0])
    assert text.rstrip().endswith("positive")
