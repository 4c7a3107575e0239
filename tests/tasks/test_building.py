"""Tasks as they are built: found, located, identified, and refused."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.requests import LogLikelihood
from mergesearch.tasks import Suite, TaskSpec
from tests.evaluating import ROWS

Write = Callable[..., Path]
Build = Callable[..., Evaluator]

ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
    "metric_list": [{**ACC, "metric": "exact_match"}],
}
FILTERS = [{"name": name, "filter": [{"function": "take_first"}]} for name in ("strict", "loose")]


def refusal(build: Build, *tasks: Any, **spec: Any) -> str:
    with pytest.raises(InputError) as caught:
        build(*tasks, **spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_built(write_task: Write, build: Build) -> None:
    write_task("t")
    (task,) = build("t", metric="acc_norm", weight=2, limit=4).tasks()
    assert (task.id.task, task.id.metric, task.id.filter, task.weight) == (
        "t",
        "acc_norm",
        "none",
        2,
    )
    assert (task.n_documents, task.n_available, task.id.higher_is_better) == (4, 10, True)
    assert task.id.group is None
    assert sorted(task.order) == list(task.doc_ids) == [0, 1, 2, 3]
    contexts = [f"{ROWS[i]['text']}?" for i in (3, 3, 1, 1)]
    choices = [" no way", " yes"] * 2
    asked = [LogLikelihood(*texts) for texts in zip(contexts, choices, strict=True)]
    assert task.requests([3, 1]) == asked


@pytest.mark.parametrize(
    "kwargs",
    [
        {"data_files": "sub/t.jsonl"},
        {"data_files": ["sub/t.jsonl"]},
        {"data_files": {"test": ["sub/t.jsonl"]}},
        {"data_files": {"test": "sub/*.jsonl"}},
        {"data_dir": "sub"},
        {"data_dir": "sub", "data_files": {"test": "t.jsonl"}},
    ],
    ids=str,
)
def test_data_lies_beside_the_yaml(
    write_task: Write, build: Build, monkeypatch: pytest.MonkeyPatch, kwargs: Any
) -> None:
    monkeypatch.chdir("/")
    files = kwargs.get("data_files")
    split = "test" if isinstance(files, dict) else "train"
    folder = write_task("t", dataset_kwargs=kwargs, test_split=split)
    (folder / "sub").mkdir()
    (folder / "t.jsonl").rename(folder / "sub" / "t.jsonl")
    assert build("t").tasks()[0].n_available == 10


def test_missing_data_is_named(write_task: Write, build: Build) -> None:
    folder = write_task("t", dataset_kwargs={"data_files": {"test": "tt.jsonl"}})
    assert refusal(build, "t") == (
        f"task 't': data file 'tt.jsonl' does not exist; put it beside the task's YAML, "
        f"in {folder}, or give its absolute path"
    )


@pytest.mark.slow  # lm-eval's index of its own tasks
def test_unknown_task(write_task: Write, build: Build) -> None:
    write_task("sentiment")
    message = refusal(build, "arc_eazy")
    assert message.startswith("unknown task 'arc_eazy'; did you mean 'arc_easy'? available: ")
    assert "available: sentiment, arc_easy, " in message  # the suite's own, then lm-eval's


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("f1", "task 't': unknown metric 'f1'; available: acc, acc_norm"),
        ("acc,strict", "task 't': unknown filter 'strict'; available: none"),
    ],
)
def test_unknown_metric(write_task: Write, build: Build, metric: str, message: str) -> None:
    write_task("t")
    assert refusal(build, "t", metric=metric) == message


def test_several_filters_need_a_name(write_task: Write, build: Build) -> None:
    write_task("t", **GENERATE, filter_list=FILTERS)
    assert refusal(build, "t", metric="exact_match") == (
        "task 't' has 2 filters, so a metric must name one; "
        "write metric: 'exact_match,strict' or 'exact_match,loose'"
    )
    assert build("t", metric="exact_match,loose").tasks()[0].id.filter == "loose"


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        ({"rows": []}, {}, "task 't' has no documents, or a choice without text; check its data"),
        ({"test_split": "tset"}, {}, "task 't' cannot be loaded: KeyError: 'tset'"),
        ({"doc_to_text": "{{txt}}"}, {}, "task 't' cannot be loaded: .*'txt' is undefined"),
        ({"unsafe_code": True}, {}, "task 't' runs code that a model writes"),
        ({"doc_to_image": "text"}, {}, "task 't' reads images or sound"),
        ({}, {"num_fewshot": 30}, "task 't' cannot be rendered with 30 shots: ValueError: Sample"),
        (
            {"num_fewshot": 0},
            {"num_fewshot": 2},
            "task 't' fixes num_fewshot at 0, but the suite asks for 2; drop num_fewshot",
        ),
        (
            {},
            {"apply_chat_template": True},
            "task 't': the tokenizer has no chat template; drop apply_chat_template",
        ),
        (
            {"metric_list": [ACC, {**ACC, "metric": "bleu"}]},
            {"metric": "bleu"},
            "task 't' lists 'bleu' in its metric_list, but its grading does not compute it; "
            "choose one that lm-eval has for multiple_choice",
        ),
        (
            {"metric_list": [{"metric": "acc", "higher_is_better": None, "aggregation": "mean"}]},
            {},
            "task 't': whether a higher acc is better must be known; add 'higher_is_better'",
        ),
        (
            {"metric_list": [{**ACC, "metric": "likelihood"}]},
            {"metric": "likelihood"},
            "task 't': cannot compute likelihood: ValueError",  # lm-eval takes the mean of pairs
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_tasks_that_cannot_be_scored(
    write_task: Write, build: Build, settings: Any, spec: Any, message: str
) -> None:
    write_task("t", **settings)
    assert re.match(message, refusal(build, "t", **spec))


def test_the_fingerprint_stays_where_scores_cannot_change(
    write_task: Write, build: Build, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_task("t")
    (task,) = build("t").tasks()
    write_task("other_name", description="", metadata={"version": 7}, task_alias="T")
    (renamed,) = build("other_name", weight=3).tasks()
    assert renamed.id.fingerprint == task.id.fingerprint
    tokenizer(["a", "bcd"], padding=True)  # leaves its padding behind in the tokenizer
    assert build("t").tasks()[0].id.fingerprint == task.id.fingerprint
    (limited,) = build("t", limit=5).tasks()  # a document's score is the same under any limit
    assert limited.id.fingerprint == limited.full().id.fingerprint == task.id.fingerprint


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        ({"doc_to_text": "{{text}}!"}, {}),
        ({"doc_to_target": "{{1 - label}}"}, {}),
        ({"doc_to_choice": ["no way", "yeah"]}, {}),
        ({"target_delimiter": ""}, {}),
        ({"rows": [{"text": "a", "label": 0}]}, {}),
        ({}, {"metric": "acc_norm"}),
        ({}, {"num_fewshot": 1}),
    ],
    ids=str,
)
def test_the_fingerprint_changes_where_scores_could(
    write_task: Write, build: Build, settings: Any, spec: Any
) -> None:
    write_task("t")
    before = build("t").tasks()[0].id.fingerprint
    write_task("t", **settings)
    assert build("t", **spec).tasks()[0].id.fingerprint != before


def test_the_fingerprint_holds_the_tokenizer(
    write_task: Write, build: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    suite = Suite(include_path=(write_task("t"),), search=(TaskSpec(task="t", metric="acc"),))
    other = copy.deepcopy(tokenizer)
    other.eos_token = "z"
    before, after = (Evaluator(suite, t).tasks()[0].id.fingerprint for t in (tokenizer, other))
    assert before == build("t").tasks()[0].id.fingerprint
    assert before != after


def test_a_grading_and_an_aggregation_of_its_own(
    write_task: Write, build: Build, model: Any, tmp_path: Path
) -> None:
    write_task("t", rows=[{"text": "a", "answer": "x", "worth": 2}, {"text": "b", "worth": 4}])
    task = (
        "dataset_path: json\ndataset_kwargs: {data_files: {test: t.jsonl}}\ntest_split: test\n"
        'output_type: generate_until\ndoc_to_text: "{{text}}"\ndoc_to_target: "{{answer}}"\n'
        'generation_kwargs: {until: ["a"], max_gen_toks: 1}\ntask: t\n'
        "process_results: !function grade.worth\n"
        "metric_list:\n"
        "  - {metric: worth, higher_is_better: true, aggregation: !function grade.largest}\n"
    )
    (tmp_path / "t.yaml").write_text(task)
    (tmp_path / "grade.py").write_text(
        "def worth(doc, results):\n    return {'worth': doc['worth']}\n\n\n"
        "def largest(values):\n    return max(values)\n"
    )
    evaluator = build("t", metric="worth")
    (score,) = evaluator.score(model).tasks
    assert (score.values, score.value, score.stderr) == ((2.0, 4.0), 4.0, None)
    before = evaluator.tasks()[0].id.fingerprint
    # Its grading may read any field.
    (tmp_path / "t.jsonl").write_text('{"text": "a", "answer": "x", "worth": 3}\n' * 2)
    assert build("t", metric="worth").tasks()[0].id.fingerprint != before


def test_both_splits_are_built(write_task: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = write_task("t")
    spec, wrong = TaskSpec(task="t", metric="acc"), TaskSpec(task="t", metric="nope")
    with pytest.raises(InputError, match="unknown metric 'nope'"):
        Evaluator(Suite(include_path=(folder,), search=(spec,), held_out=(wrong,)), tokenizer)
