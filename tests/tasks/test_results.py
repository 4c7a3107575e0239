"""Results beside those that lm-eval writes, and as its own tables read them."""

import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.loggers.utils import get_git_commit_hash
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.evaluation import Evaluator
from mergesearch.scores import Interval, Scores, interval
from mergesearch.tasks import TaskSpec, results_json
from mergesearch.tasks.results import Provenance
from mergesearch.tasks.rows import ResultRow, rows_of

Write = Callable[..., Path]
Build = Callable[..., Evaluator]

ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
#: What the two runs differ in.
DIFFERS = {
    "config",
    "date",
    "fewshot_as_multiturn",
    "model_source",
    "total_evaluation_time_seconds",
}


@pytest.fixture
def suite(
    write_task: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TaskSpec, ...]:
    """A group of two levels and two metrics, a task of two filters, and one where lower is better.

    Each task has metrics enough that the suite does not name.
    """
    monkeypatch.chdir(tmp_path)  # lm-eval finds relative data in the working folder only
    rows = [{"text": f"{i} is", "label": int(i % 3 == 0), "answer": "w"} for i in range(12)]
    for name, n in (("a", 12), ("b", 5), ("c", 8)):
        write_task(name, rows=rows[:n], task_alias=f"task {name}", metadata={"version": 1.5})
    letters = {"function": "regex", "regex_pattern": "([a-z])"}
    write_task(
        "g",
        output_type="generate_until",
        doc_to_text="{{text}}",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 3},
        metric_list=[{**ACC, "metric": "exact_match"}],
        filter_list=[
            {"name": "strict", "filter": [{"function": "take_first"}]},
            {"name": "loose", "filter": [letters, {"function": "take_first"}]},
        ],
    )
    write_task(
        "p",
        output_type="loglikelihood",
        doc_to_text="{{text}}",
        doc_to_target=" {{answer}}",
        metric_list=[
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
        ],
    )
    for name, members, sized in (("inner", ["b", "c"], False), ("outer", ["a", "inner"], True)):
        group = {
            "group": name,
            "group_alias": f"all of {name}",
            "task": members,
            "aggregate_metric_list": [
                {"metric": "acc", "weight_by_size": sized},
                {"metric": "acc_norm"},
            ],
            "metadata": {"version": 2.0},
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(group))
    return (
        TaskSpec(task="outer", metric="acc", weight=2, limit=7),
        TaskSpec(task="g", metric="exact_match,loose", limit=7),
        TaskSpec(task="p", metric="perplexity", limit=7),
    )


@pytest.fixture
def ours(
    suite: tuple[TaskSpec, ...],
    build: Build,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[dict[str, Any], Scores, tuple[ResultRow, ...]]:
    evaluator = build(*suite)
    provenance = Provenance("some/model", 4)
    scores = evaluator.score(model)
    results = results_json(scores, evaluator.tasks())
    rows = rows_of(results, scores, evaluator.tasks())
    results |= provenance.json(
        evaluator.describe(model), copy.deepcopy(tokenizer), evaluator.tasks()
    )
    assert json.loads(json.dumps(results)) == results
    return results, scores, rows


@pytest.fixture
def theirs(
    suite: tuple[TaskSpec, ...],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The file that `lm_eval run --output_path` would write."""
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    results = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=4),
        model_args={"pretrained": "some/model"},
        tasks=[spec.task for spec in suite],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        limit=7,
        batch_size=4,
        bootstrap_iters=1000,
        evaluation_tracker=tracker,
    )
    tracker.save_results_aggregated(results, results.pop("samples"))
    (file,) = (tmp_path / "out").rglob("results_*.json")
    return json.loads(file.read_text())


def test_results_are_what_lm_eval_writes(
    ours: tuple[dict[str, Any], Scores, Any], theirs: dict[str, Any]
) -> None:
    results, scores, _ = ours
    assert theirs.keys() - results.keys() == {"pretty_env_info"}
    assert results.keys() - theirs.keys() == {"start_time", "end_time"}
    same = theirs.keys() - {"results", "groups", "configs", "pretty_env_info", *DIFFERS}
    assert {"task_hashes", "n-shot", "versions", "model_name_sanitized", "max_length"} <= same
    for key in same:
        assert results[key] == theirs[key], key
    assert results["config"].keys() == theirs["config"].keys()
    assert results["config"]["limit"] == 7
    assert results["config"]["model_num_parameters"] == theirs["config"]["model_num_parameters"]
    chosen = {score.id.task: f"{score.id.metric},{score.id.filter}" for score in scores.tasks}
    for part in ("results", "groups"):
        assert results[part].keys() == theirs[part].keys()
        for name, expected in theirs[part].items():
            kept = chosen.get(name, "acc,none")
            metrics = {key: value for key, value in expected.items() if "," in key}
            named = {kept, kept.replace(",", "_stderr,")}
            expected = {k: v for k, v in expected.items() if k in named or k not in metrics}
            if "sample_count" in expected:
                expected["sample_count"] = {"acc,none": expected["sample_count"]["acc,none"]}
            got = results[part][name]
            assert got.keys() == expected.keys()
            for key, value in expected.items():
                rel = 0.2 if name == "p" and "stderr" in key else 1e-4  # a bootstrap of theirs
                close = pytest.approx(value, rel=rel) if isinstance(value, float) else value
                assert got[key] == close, (name, key)
    for name, config in theirs["configs"].items():
        for key in config.keys() - {"dataset_kwargs", "metadata"}:  # which hold paths
            assert results["configs"][name][key] == config[key]
        assert results["configs"][name].keys() == config.keys()


def test_lm_evals_own_tables_read_them(
    ours: tuple[dict[str, Any], Scores, Any], theirs: dict[str, Any]
) -> None:
    results, _, _ = ours
    tables = [make_table(results, column).splitlines() for column in ("results", "groups")]
    assert len(tables[0]) == 2 + 7  # two groups, five tasks
    assert len(tables[1]) == 2 + 2
    cells = [[cell.strip() for cell in line.split("|")] for table in tables for line in table]
    whole = make_table(theirs).splitlines() + make_table(theirs, "groups").splitlines()
    known = [[cell.strip() for cell in line.split("|")] for line in whole]
    first = {(row[1], row[2], row[4], row[6]) for row in known}
    for row in cells:
        if row[1] and not row[1].startswith("-") and row[5] == "acc":
            assert (row[1], row[2], row[4], row[6]) in first


def test_the_table_has_lm_evals_rows_in_its_order(
    ours: tuple[dict[str, Any], Scores, tuple[ResultRow, ...]],
) -> None:
    results, scores, rows = ours
    lines = make_table(results).splitlines()[2:]
    assert len(lines) == len(rows)
    arrows = {True: "↑", False: "↓"}
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        alias = f"- {row.alias}" if row.depth else row.alias
        shown = [alias, row.filter, row.n_shot, row.metric, arrows[bool(row.higher_is_better)]]
        assert shown == [cells[0], *cells[2:6]]
        assert float(cells[6]) == pytest.approx(row.value, abs=1e-4)
        assert float(cells[8]) == pytest.approx(row.stderr, abs=1e-4)
        assert cells[1].removesuffix(".0") == row.version.removesuffix(".0")
    assert [row.depth for row in rows] == [0, 1, 1, 2, 2, 0, 0]
    by_alias = {row.alias: row for row in rows}
    values = {score.id.task: score for score in scores.tasks}
    for row in rows:
        assert row.interval.value == pytest.approx(row.value)
        assert row.interval.low <= row.value <= row.interval.high
    outer = Scores(tuple(score for score in scores.tasks if score.id.group == "outer"))
    assert asdict(by_alias["all of outer"].interval) == pytest.approx(asdict(interval(outer)))
    halves = [np.mean(values[name].values) for name in ("b", "c")]
    assert by_alias["all of inner"].value == pytest.approx(np.mean(halves))
    lower = interval(Scores((values["p"],)))
    assert by_alias["p"].interval == Interval(-lower.value, -lower.high, -lower.low)


def test_a_mean_of_one_document_has_no_error(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    write_task("t")
    evaluator = build("t", limit=1)
    scores = evaluator.score(model)
    results = results_json(scores, evaluator.tasks())
    assert results["results"]["t"]["acc_stderr,none"] == "N/A"
    assert "groups" not in results
    (row,) = rows_of(results, scores, evaluator.tasks())
    assert (row.depth, row.stderr, row.version) == (0, None, "Yaml")
    assert re.search(r"\|t .*\|acc +\|↑ .*N/A", make_table(results))


def test_what_the_prompts_were_is_told(
    write_task: Write,
    build: Build,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = "{% for m in messages %}<{{m.role}}>{{m.content}}|{% endfor %}<a>"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    write_task("a")
    write_task("b")
    chat = {"apply_chat_template": True, "fewshot_as_multiturn": False, "num_fewshot": 2}
    evaluator = build(
        TaskSpec(task="a", metric="acc", limit=3, **chat), TaskSpec(task="b", metric="acc")
    )
    told = Provenance("m", None).json(evaluator.describe(model), tokenizer, evaluator.tasks())
    assert told["git_hash"] == get_git_commit_hash()
    assert (told["chat_template"], told["fewshot_as_multiturn"]) == (template, False)
    assert len(told["chat_template_sha"]) == 64
    assert told["config"]["limit"] == {"a": 3, "b": None}
    assert math.isclose(
        float(told["total_evaluation_time_seconds"]), told["end_time"] - told["start_time"]
    )
    results = results_json(evaluator.score(model), evaluator.tasks())
    assert results["n-shot"] == {"a": 2, "b": 0}
