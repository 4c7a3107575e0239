# ruff: noqa: RUF001 - the sign for "times" is meant
"""The pages know what the code has, and lead where they say."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import mergesearch
from mergesearch.methods import METHODS
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, name_of
from tests.test_rooms import ROOMS

BUILD = "mkdocs", "material"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """The hooks of the site's build."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_line_and_no_line_is_left_over() -> None:
    lines = yaml.safe_load((DOCS / "methods.yaml").read_text())
    assert set(lines) == set(METHODS), "docs/methods.yaml: a line for each method"


def test_the_tables_of_methods_have_every_method_and_every_parameter(hooks: ModuleType) -> None:
    page = (DOCS / "methods.md").read_text()
    assert "<!-- table of methods -->" in page
    assert "<!-- table of parameters -->" in page
    methods, parameters = hooks.methods_table(), hooks.parameters_table()
    assert re.findall(r"^\| `(\w+)` \|", methods, flags=re.MULTILINE) == list(METHODS)
    for name, method in METHODS.items():
        for parameter in method.parameters:
            row = rf"^\| `{parameter.name}` \|.*`{name}`"
            assert re.search(row, parameters, flags=re.MULTILINE), (name, parameter.name)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (
            "task_arithmetic",
            "([2212.04089](https://arxiv.org/abs/2212.04089)) | `weight`, `lambda`, `normalize` | "
            "≤ 1e-6 |",
        ),
        ("dare_ties", "| in distribution |"),
        ("tsv_m", "| `lambda` | - |"),
        ("arcee_fusion", "(mergekit) | none | ≤ 1e-6 |"),
    ],
)
def test_a_row_has_source_parity_and_speed(hooks: ModuleType, name: str, row: str) -> None:
    table = hooks.methods_table().replace("\N{NO-BREAK SPACE}", " ")
    (line,) = [x for x in table.splitlines() if x.startswith(f"| `{name}` |")]
    families = json.loads((ROOT / "results/benchmarks/merge.json").read_text())["families"]
    measured = [row for of in families for row in of["rows"] if row["method"] == name]
    speeds = [f" {row['per_candidate']:.2f} s, {row['times_copy']:.1f} × |" for row in measured]
    assert len(speeds) == 2
    assert line.endswith(row + "".join(speeds))


def test_the_architecture_lists_exactly_the_rooms_in_their_order() -> None:
    page = (DOCS / "architecture.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE) == list(ROOMS)


def test_the_tour_leads_through_files_that_are_there() -> None:
    tour = (DOCS / "architecture.md").read_text().split("## A tour of five files")[1]
    files = re.findall(r"^\d\. `(mergesearch/\S+\.py)`", tour, flags=re.MULTILINE)
    assert len(files) == 5
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_files_that_are_included_are_there(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith("https://"):
            assert (page.parent / link).exists(), link
    for block in blocks(page, "python", "toml", "yaml"):
        assert all((ROOT / file.split(":")[0]).is_file() for file in block.included)


def test_the_readme_can_be_read_in_one_go_and_counts_the_methods() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 160
    assert f"{len(METHODS)} of them" in text
    assert f"any of {len(METHODS) - 1}," in text  # all but passthrough can be searched


def test_the_version_is_one() -> None:
    released = re.search(r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released
    version, date = released.groups()
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert version == mergesearch.__version__ == cited["version"]
    assert date == cited["date-released"]
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in BUILD), reason="run `make docs` first"
)
def test_the_site_builds_and_takes_nothing_from_other_hosts(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list(DOCS.glob("*.md")))
    for page in pages:
        html = page.read_text()
        assert "&lt;!-- table" not in html and "<!-- table" not in html
        taken = re.findall(r"<(?:script|img|iframe)[^>]*src=\"?([^\" >]+)", html)
        taken += re.findall(r"<link[^>]*href=\"?([^\" >]+)", html)
        assert not [link for link in taken if re.match(r"(https?:)?//", link)], page
