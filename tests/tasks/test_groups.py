"""Groups of tasks: their totals beside lm-eval's own aggregation."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.tasks import TaskSpec

Write = Callable[..., Path]
Build = Callable[..., Evaluator]
Run = Callable[..., dict[str, Any]]

ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}",
    "doc_to_target": "{{text}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3},
    "metric_list": [{**ACC, "metric": "exact_match"}],
}
ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [
        {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
    ],
}
SIZES = {"a": 12, "b": 5, "c": 8}


def rows(name: str) -> list[dict[str, Any]]:
    """Documents whose first answers are right more often in the one task than in the other."""
    wrong = {"a": 2, "b": 3, "c": 5}[name]
    return [
        {"text": f"{name} {i * 7} is", "label": int(i % wrong == 0)} for i in range(SIZES[name])
    ]


@pytest.fixture
def tasks(write_task: Write) -> None:
    for name in SIZES:
        write_task(name, rows=rows(name))


@pytest.fixture
def write_group(tmp_path: Path) -> Callable[..., None]:
    def write(name: str, members: list[Any], *aggregates: dict[str, Any], **more: Any) -> None:
        group = {"group": name, "task": members, **more}
        if aggregates:
            group["aggregate_metric_list"] = list(aggregates)
        (tmp_path / f"{name}.yaml").write_text(json.dumps(group))

    return write


def assert_equal_totals(
    build: Build, run: Run, model: PreTrainedModel, metric: str = "acc", **spec: Any
) -> Evaluator:
    """The total over group 'g' is what lm-eval makes of it, with the suite's limit and without."""
    evaluator = build("g", metric=metric, **spec)
    key = metric if "," in metric else f"{metric},none"
    sign = 1 if evaluator.tasks()[0].id.higher_is_better else -1
    for full, limit in ((False, spec.get("limit")), (True, None)):
        scores = evaluator.score(model, full=full)
        expected = run(model, "g", limit=limit)["results"]
        assert sign * scores.total == pytest.approx(expected[key], rel=1e-5)
        assert sum(task.weight for task in scores.tasks) == pytest.approx(spec.get("weight", 1))
    return evaluator


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize("limit", [None, 6])
@pytest.mark.parametrize("weight_by_size", [True, False])
def test_a_group_totals_what_lm_eval_aggregates(
    write_group: Callable[..., None],
    build: Build,
    lm_eval_run: Run,
    model: PreTrainedModel,
    weight_by_size: bool,
    limit: int | None,
) -> None:
    write_group("g", ["a", "b", "c"], {"metric": "acc", "weight_by_size": weight_by_size})
    evaluator = assert_equal_totals(build, lm_eval_run, model, limit=limit, weight=2.0)
    tasks = evaluator.tasks()
    assert [(task.id.task, task.id.group) for task in tasks] == [("a", "g"), ("b", "g"), ("c", "g")]
    sizes = [min(n, limit or n) if weight_by_size else 1 for n in SIZES.values()]
    assert [task.weight for task in tasks] == pytest.approx([2 * n / sum(sizes) for n in sizes])
    scores = evaluator.score(model)
    assert [len(score.doc_ids) for score in scores.tasks] == [
        min(n, limit or n) for n in SIZES.values()
    ]
    assert {score.id.group for score in scores.tasks} == {"g"}
    assert len({score.value for score in scores.tasks}) == 3  # so that weights matter


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    "members",
    [
        ["a", "h"],
        [{"task": "a"}, {"group": "h"}],
        ["a", {"group": "inline", "task": ["b", {"task": "c", "doc_to_text": "{{text}}!"}]}],
        ["h", "b"],  # twice in the group: it counts twice
        ["a", "tagged"],
    ],
    ids=str,
)
def test_groups_within_groups(
    write_group: Callable[..., None],
    write_task: Write,
    build: Build,
    lm_eval_run: Run,
    model: PreTrainedModel,
    members: list[Any],
) -> None:
    for name in ("b", "c"):
        write_task(name, rows=rows(name), tag="tagged")
    write_group("h", ["b", "c"])
    write_group("g", members, {"metric": "acc"})
    evaluator = assert_equal_totals(build, lm_eval_run, model, limit=7)
    names = [task.id.task for task in evaluator.tasks()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("listed", [None, "strict", ["loose", "strict"]], ids=str)
def test_filters_of_a_group(
    write_group: Callable[..., None],
    write_task: Write,
    build: Build,
    lm_eval_run: Run,
    model: PreTrainedModel,
    listed: Any,
) -> None:
    strict = {"name": "strict", "filter": [{"function": "take_first"}]}
    loose = {
        "name": "loose",
        "filter": [
            {"function": "regex", "regex_pattern": "([a-z])"},
            {"function": "take_first"},
        ],
    }
    write_task("a", rows=rows("a"), **GENERATE, filter_list=[strict, loose])
    write_task("b", rows=rows("b"), **GENERATE, filter_list=[strict])
    write_group("g", ["a", "b"], {"metric": "exact_match", "filter_list": listed})
    assert_equal_totals(build, lm_eval_run, model, "exact_match,strict", limit=3)
    if listed == "strict":
        assert build("g", metric="exact_match").tasks()[0].id.filter == "strict"
        with pytest.raises(InputError, match=r"^group 'g': unknown filter 'loose'; available: st"):
            build("g", metric="exact_match,loose")
    else:
        (loose_only,) = assert_equal_totals(build, lm_eval_run, model, "exact_match,loose").tasks()
        assert loose_only.id.task == "a"
        with pytest.raises(InputError, match=r"^group 'g' has 2 filters, so a metric must name"):
            build("g", metric="exact_match")


def test_lower_may_be_better(
    write_group: Callable[..., None],
    write_task: Write,
    build: Build,
    lm_eval_run: Run,
    model: PreTrainedModel,
) -> None:
    for name in SIZES:
        write_task(name, rows=rows(name), **ROLLING)
    write_group("g", list(SIZES), {"metric": "bits_per_byte"})
    evaluator = assert_equal_totals(build, lm_eval_run, model, "bits_per_byte", limit=6)
    assert not evaluator.tasks()[0].id.higher_is_better


def test_a_task_without_the_metric_does_not_count(
    write_group: Callable[..., None],
    write_task: Write,
    build: Build,
    lm_eval_run: Run,
    model: PreTrainedModel,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("a", "b"):
        write_task(name, rows=rows(name))
    write_task("c", rows=rows("c"), metric_list=[ACC])
    write_group("g", ["a", "b", "c"], {"metric": "acc"}, {"metric": "acc_norm"})
    with caplog.at_level(logging.WARNING, "mergesearch"):
        evaluator = build("g", metric="acc_norm")
    assert "group 'g': 1 of its tasks do not have acc_norm and do not count: c" in caplog.text
    theirs = lm_eval_run(model, "g")["results"]
    assert evaluator.score(model).total == pytest.approx(theirs["acc_norm,none"])
    assert [task.id.task for task in evaluator.tasks()] == ["a", "b"]


@pytest.mark.usefixtures("tasks")
def test_a_group_shares_its_weight_beside_other_tasks(
    write_group: Callable[..., None], build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    write_group("g", ["a", "b"], {"metric": "acc"})
    specs = TaskSpec(task="g", metric="acc", weight=3), TaskSpec(task="c", metric="acc_norm")
    total = build(*specs).score(model).total
    group = lm_eval_run(model, "g")["results"]["acc,none"]
    alone = lm_eval_run(model, "c")["results"]["acc_norm,none"]
    assert total == pytest.approx((3 * group + alone) / 4)


def test_solved_examples_as_lm_eval_gives_them(
    write_group: Callable[..., None],
    write_task: Write,
    build: Build,
    lm_eval_run: Run,
    model: PreTrainedModel,
) -> None:
    write_task("a", rows=rows("a"))
    write_task("b", rows=rows("b"), num_fewshot=0)  # which no run changes
    write_group("g", ["a", "b"], {"metric": "acc"})
    evaluator = build("g", num_fewshot=2)
    theirs = lm_eval_run(model, "g", num_fewshot=2)["whole"]
    assert evaluator.score(model).total == pytest.approx(theirs["results"]["g"]["acc,none"])
    for task in evaluator.tasks():
        prompts = [requests[0].args[0] for requests in task.documents]
        assert prompts == [s["arguments"][0][0] for s in theirs["samples"][task.id.task]]


def test_data_lies_beside_the_yaml_of_each_member(
    write_group: Callable[..., None],
    write_task: Write,
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b"):
        folder = write_task(name, rows=rows(name))
        (folder / name).mkdir()
        for suffix in ("yaml", "jsonl"):
            (folder / f"{name}.{suffix}").rename(folder / name / f"{name}.{suffix}")
    (tmp_path / "inline.jsonl").write_text((tmp_path / "b" / "b.jsonl").read_text())
    inline = json.loads((tmp_path / "b" / "b.yaml").read_text()) | {
        "task": "inline",
        "dataset_kwargs": {"data_files": {"test": "inline.jsonl"}},
    }
    write_group("g", [{"group": "h", "task": ["a", inline]}, "b"], {"metric": "acc"})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    tasks = build("g").tasks()
    assert [task.n_documents for task in tasks] == [SIZES["a"], SIZES["b"], SIZES["b"]]
    (tmp_path / "b" / "b.jsonl").unlink()
    with pytest.raises(InputError, match=r"^task 'b': data file 'b.jsonl' does not exist; put it"):
        build("g")


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        (
            "skills",
            "acc",
            "'skills' is a tag of tasks, which has no score of its own; list them instead: t",
        ),
        (
            "plain",
            "acc",
            "group 'plain' does not aggregate 'acc' (aggregate_metric_list: none), so it has no "
            "such score; list its members instead: a, g",
        ),
        (
            "g",
            "acc_norm",
            "group 'g' does not aggregate 'acc_norm' (aggregate_metric_list: acc, f1), so it has "
            "no such score; list its members instead: a, b",
        ),
        (
            "g",
            "f1",
            "group 'g': none of its tasks has 'f1' by a filter of its aggregate_metric_list; list "
            "its members instead: a, b",
        ),
        (
            "broken",
            "acc",
            "group 'broken' cannot be loaded: ValueError: Dict entry in group 'broken' must have ",
        ),
        (
            "mixed",
            "acc",
            "group 'mixed': a higher acc is better in some of its tasks and worse in others; list "
            "its members instead: a, u",
        ),
    ],
)
def test_groups_that_have_no_score(
    write_group: Callable[..., None],
    write_task: Write,
    build: Build,
    name: str,
    metric: str,
    message: str,
) -> None:
    write_task("t", tag="skills")
    write_task("u", metric_list=[{**ACC, "higher_is_better": False}])
    write_group("plain", ["a", "g"])
    write_group("g", ["a", "b"], {"metric": "acc"}, {"metric": "f1"})
    write_group("broken", ["a", {"tsak": "b"}], {"metric": "acc"})
    write_group("mixed", ["a", "u"], {"metric": "acc"})
    with pytest.raises(InputError) as caught:
        build(name, metric=metric)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("tasks")
def test_a_task_counts_once_in_a_split(write_group: Callable[..., None], build: Build) -> None:
    write_group("g", ["a", "b"], {"metric": "acc"})
    write_group("h", ["c", "b"], {"metric": "acc"})
    with pytest.raises(InputError) as caught:
        build("a", "g")
    assert str(caught.value) == (
        "a task may appear once in a split, but 'a' appears by itself and in group 'g'; "
        "list it or the members of the groups once"
    )
    with pytest.raises(InputError, match="'b' appears in group 'g' and in group 'h'; list it"):
        build("g", "h")


@pytest.mark.slow  # lm-eval's index of its own tasks
@pytest.mark.usefixtures("tasks")
def test_a_group_may_name_tasks_of_lm_eval(write_group: Callable[..., None], build: Build) -> None:
    write_group("g", ["a", "arc_easy"], {"metric": "acc"})
    with pytest.raises(InputError, match=r"^task 'arc_easy' cannot be loaded: "):  # no network
        build("g")
    write_group("typo", ["a", "arc_eazy"], {"metric": "acc"})
    message = r"^group 'typo': unknown task 'arc_eazy'; did you mean 'arc_easy'\? available: a, b, "
    with pytest.raises(InputError, match=message):
        build("typo")
