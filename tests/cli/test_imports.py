"""What each command loads before it does anything slow, so that it answers at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.hand_made import Model, make_run, right

#: What takes long to import, each by its own: seconds, or most of one.
SLOW = ("torch", "transformers", "lm_eval", "datasets", "peft", "optuna", "scipy", "pandas")
MODELS: list[Model] = [
    ("one", "parent", right(60), right(50)),
    ("winner", "winner", right(90), right(80)),
]
SPACE = "{parents: {one: a/one, two: a/two}, methods: {linaer: {}}, suite: suite.yaml}"
SUITE = "{serch: [{task: one, metric: acc}]}"
RECIPE = "{merge_method: linaer, models: [{model: a/one}]}"

CODE = """
import sys
from mergesearch.cli import main
sys.argv = ["mergesearch", *sys.argv[1:]]
try:
    main()
finally:
    print(*sys.modules)
"""


def ran(folder: Path, *arguments: str) -> tuple[int, str, set[str]]:
    """The exit code of a command in a process of its own, what it said, and what it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    *said, loaded = done.stdout.splitlines()
    return done.returncode, "\n".join([*said, done.stderr]), set(loaded.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", MODELS)
    for name, text in (("space", SPACE), ("suite", SUITE), ("recipe", RECIPE)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "further"),
    [
        (("--help",), ("numpy", "pydantic", "yaml", "rich.progress")),
        *(
            ((command, "--help"), ("numpy", "yaml", "rich.progress"))
            for command in ("demo", "check", "search", "soup", "merge", "evaluate", "export")
        ),
        (("schema", "space"), ("numpy", "rich")),
        (("schema", "suite"), ("rich",)),
        (("schema", "recipe"), ("rich",)),
        (("leaderboard", "run"), ("rich.progress",)),
        (("leaderboard", "run", "--format", "md"), ("rich",)),
        (("leaderboard", "run", "--format", "csv"), ("rich", "tabulate")),
        (("leaderboard", "run", "--format", "json"), ("rich", "tabulate")),
    ],
    ids=" ".join,
)
def test_what_shows_loads_nothing_slow(
    folder: Path, arguments: tuple[str, ...], further: tuple[str, ...]
) -> None:
    code, said, loaded = ran(folder, *arguments)
    assert code == 0, said
    assert said.strip()
    assert not {*SLOW, *further} & loaded


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("search", "space.yaml"), "space.yaml: methods: unknown method 'linaer'; did you mean"),
        (("check", "space.yaml"), "space.yaml: methods: unknown method 'linaer'; did you mean"),
        (("soup", "space.yaml"), "space.yaml: methods: unknown method 'linaer'; did you mean"),
        (("search", "no.yaml"), "no such file: no.yaml"),
        (("check", "space.yaml", "--memory-budget", "much"), "memory_budget: a size is a number"),
        (("evaluate", "a/one", "suite.yaml"), "suite.yaml: unknown key 'serch'; did you mean"),
        (("evaluate", "recipe.yaml", "suite.yaml"), "suite.yaml: unknown key 'serch'; did you "),
        (("merge", "recipe.yaml", "out"), "recipe.yaml: unknown merge_method 'linaer'; did you m"),
        (("merge", "recipe.yaml", "out", "--max-shard-size", "big"), "a size is a number with KB"),
        (("leaderboard", "run", "--format", "mdd"), "unknown format 'mdd'; did you mean 'md'? av"),
        (("leaderboard", "nowhere"), "nowhere is no run folder: it has no run.json"),
        (("leaderboard", "run", "--front"), "run has no front: it was searched for one objective"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_with_the_words_alone_is_said_before_anything_slow_is_loaded(
    folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    code, said, loaded = ran(folder, *arguments)
    assert code == 2
    assert said.strip().startswith("mergesearch: ")
    assert said.strip().count("\n") == 0
    assert says in said
    assert not {*SLOW, "rich"} & loaded
