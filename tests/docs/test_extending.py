"""The package that the page on extending shows, installed and used."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from mergesearch.plugins import Table
from tests.docs.pages import DOCS, EXAMPLES, ROOT, blocks

pytestmark = pytest.mark.slow

PLUGIN = EXAMPLES / "plugin"
PROJECT = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
POINTS = PROJECT["entry-points"]
#: Each group of entry points, with the module and the name of what its rows are.
ROWS = {
    "mergesearch.methods": ("mergesearch.methods", "Method"),
    "mergesearch.samplers": ("mergesearch.samplers", "Sampler"),
    "mergesearch.objectives": ("mergesearch.objectives", "Objective"),
    "mergesearch.engines": ("mergesearch.engines", "EngineFactory"),
    "mergesearch.reports": ("mergesearch.report", "ReportFormat"),
    "mergesearch.exports": ("mergesearch.exporting", "ExportFormat"),
    "mergesearch.trackers": ("mergesearch.tracking", "TrackerFactory"),
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as `pip install` leaves it, on the path of this process and of others."""
    site = tmp_path / "site"
    info = site / "more_merging-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-merging\nVersion: 1.0\n")
    lines = []
    for group, rows in POINTS.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in rows.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (site / "more_merging").symlink_to(PLUGIN / "more_merging")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    return site


def test_the_page_shows_every_file_of_the_package() -> None:
    files = {f for block in blocks(DOCS / "extending.md", "python", "toml") for f in block.included}
    package = {p.relative_to(ROOT).as_posix() for p in PLUGIN.rglob("*.*") if p.is_file()}
    package = {name for name in package if name.endswith((".py", ".toml"))}
    assert package - files == {"docs/examples/plugin/more_merging/__init__.py"}


def test_the_page_names_every_kind_of_addition() -> None:
    page = (DOCS / "extending.md").read_text()
    assert set(POINTS) == set(ROWS) == set(re.findall(r"\| `(mergesearch\.\w+)` \|", page))


@pytest.mark.parametrize("group", ROWS)
def test_a_row_of_the_package_is_one_of_the_table(group: str, installed: Path) -> None:
    module, kind = ROWS[group]
    table: Table[object] = Table(group, getattr(import_module(module), kind), {})
    assert set(table) >= set(POINTS[group])


def test_the_method_of_the_package_keeps_the_contract(installed: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(PLUGIN / "test_median.py"),
        "-c",
        os.devnull,
    ]
    done = subprocess.run([*command, "--rootdir", str(installed)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SEARCH = """
from pathlib import Path
from mergesearch import SearchSpace, search
space = SearchSpace.load(Path("more.yaml"))
outcome = search(space, Path("run"), device="cpu", engine="transcript")
print(outcome.best.recipe.merge_method)
"""


def test_a_search_with_all_that_the_package_adds(documented: Path, installed: Path) -> None:
    space = (documented / "space.yaml").read_text()
    head = space.split("granularity:")[0]
    (documented / "more.yaml").write_text(
        f"{head}methods: {{median: {{}}}}\nsuite: suite.yaml\nsubset: [1, 2]\n"
        "search: {trials: 5, sampler: thorough_tpe, objectives: [score, parents_used]}\n"
    )
    command = [sys.executable, "-c", SEARCH]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "median"
    lines = (documented / "transcript.jsonl").read_text().splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"log-likelihood"}
    command = [sys.executable, "-m", "mergesearch", "leaderboard", "run", "--format", "latex"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(r"\begin{tabular}{lrr}")
    assert "winner & " in done.stdout
