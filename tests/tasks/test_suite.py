"""Suites: what they hold, and what they refuse."""

import subprocess
import sys
from pathlib import Path

import pytest

from mergesearch.errors import InputError
from mergesearch.tasks import Suite, TaskSpec, load_suite

SUITE = """
include_path: {include}
search:
  - {{task: a, metric: acc, weight: 2, limit: 200}}
  - {{task: b, metric: "exact_match,strict", num_fewshot: 3, apply_chat_template: true}}
held_out:
  - {{task: a, metric: acc}}
learn:
  - {{task: c, metric: acc, limit: 50, expert: one}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "more").mkdir()
    return tmp_path / "suite.yaml"


@pytest.mark.parametrize(
    ("include", "folders"), [("tasks", ["tasks"]), ("[tasks, ./more]", ["tasks", "more"])]
)
def test_include_path_is_relative_to_the_suite(
    path: Path, include: str, folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    path.write_text(SUITE.format(include=include))
    assert load_suite(path) == Suite(
        include_path=tuple(path.parent / folder for folder in folders),
        search=(
            TaskSpec(task="a", metric="acc", weight=2.0, limit=200),
            TaskSpec(
                task="b", metric="exact_match,strict", num_fewshot=3, apply_chat_template=True
            ),
        ),
        held_out=(TaskSpec(task="a", metric="acc"),),
        learn=(TaskSpec(task="c", metric="acc", limit=50, expert="one"),),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serch: []", "unknown key 'serch'; did you mean 'search'"),
        ("held_out: []", "search: is missing"),
        ("search: []", "search: .* 1 or more entries"),
        ("search: [{task: a}]", r"search\.0\.metric: is missing"),
        ("search: [{task: a, metric: acc, wieght: 1}]", "search.0: .* did you mean 'weight'"),
        ("search: [{task: a, metric: acc, weight: 0}]", "search.0.weight: .*above 0, got 0"),
        ("search: [{task: a, metric: acc, limit: 0}]", "search.0.limit: .*at least 1, got 0"),
        ("search: [{task: a, metric: acc, limit: 0.5}]", "search.0.limit: .*got 0.5"),
        ("search: [{task: a, metric: acc, num_fewshot: -1}]", "search.0.num_fewshot: .*got -1"),
        (
            "search: [{task: a, metric: acc}, {task: a, metric: acc_norm}]",
            "search: a task may appear once in a split, but 'a' appears 2 times; give one",
        ),
        (
            "search: [{task: a, metric: acc}]\n"
            "learn: [{task: b, metric: acc}, {task: b, metric: acc}]",
            "learn: a task may appear once in a split, but 'b' appears 2 times; give one",
        ),
        ("search: [{task: a, metric: acc, expert: ''}]", "search.0.expert: .*at least 1"),
        (
            "include_path: tsaks\nsearch: [{task: a, metric: acc}]",
            "include_path: must be a folder, but 'tsaks' is not one; it is looked up beside",
        ),
    ],
)
def test_wrong_suites_are_refused_in_one_line(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}: {message}") as caught:
        load_suite(path)
    assert "\n" not in str(caught.value)


def test_reading_a_suite_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import mergesearch.tasks, mergesearch.scores\n"
        "import mergesearch.engines, mergesearch.evaluation\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
