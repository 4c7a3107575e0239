"""The spaces and suites that people copy: each says what it is for, and each passes its check."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mergesearch.methods import METHODS
from mergesearch.searching import prepare
from mergesearch.space import SearchSpace
from tests import tiny

ROOT = Path(__file__).parent.parent
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
SUITES = sorted((ROOT / "evals").glob("*.yaml"))


def opening(file: Path) -> str:
    """The comment that a file begins with, as one line."""
    lines = file.read_text().splitlines()
    ends = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:ends])


def strings(data: object) -> Iterator[str]:
    match data:
        case dict():
            for value in data.values():
                yield from strings(value)
        case list():
            for value in data:
                yield from strings(value)
        case str():
            yield data


@pytest.mark.parametrize("file", [*SPACES, *SUITES], ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_opens_with_its_purpose_its_cost_and_its_command(file: Path) -> None:
    verb = "search" if file in SPACES else r"evaluate \S+"
    command = rf"mergesearch {verb} {re.escape(str(file.relative_to(ROOT)))}\b"
    # measured, or not
    measured = r"about [^;]*(hour|minute)s?\b[^;]* on two CPU cores"
    cost = rf"({measured}|its time as `mergesearch check` says)"
    assert re.match(rf"(\S+ ){{6,}}\S+; {cost}: {command}", opening(file))


def test_the_documentation_lists_exactly_these_spaces() -> None:
    page = (ROOT / "docs" / "search-spaces.md").read_text()
    rows = re.findall(
        r"^\| \[(.+?)\]\(\.\./search_spaces/(.+?\.yaml)\) \|", page, flags=re.MULTILINE
    )
    assert [f"{name}.yaml" for name, _ in rows] == [file for _, file in rows]
    assert sorted(file for _, file in rows) == [file.name for file in SPACES]


def hub_ids(file: Path) -> list[str]:
    """The models of a space that are on the hub."""
    space = yaml.safe_load(file.read_text())
    refs = [space.get("base"), *space.get("parents", {}).values()]
    return [ref for ref in refs if ref is not None and not ref.startswith("..")]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spaces and suites, with tiny stand-ins for every model and task that they name."""
    root = tmp_path_factory.mktemp("copies")
    for folder in ("search_spaces", "evals"):
        shutil.copytree(ROOT / folder, root / folder)
    for file in SPACES:
        for name in hub_ids(file):  # the folder of a stand-in, in its place
            copy = root / "search_spaces" / file.name
            local = f"../models/hub/{name}"
            copy.write_text(re.sub(rf"(: ){name}$", rf"\1{local}", copy.read_text(), flags=re.M))
            if not (root / "search_spaces" / local).exists():
                tiny.llama((root / "search_spaces" / local).resolve(), 0, num_hidden_layers=30)
    named = set()
    for file in [*SPACES, *SUITES]:
        for text in strings(yaml.safe_load(file.read_text())):
            named |= {(root / file.parent.name / part).resolve() for part in text.split("+")}
    bases = sorted(path for path in named if path.name == "base")
    for base in bases:
        tiny.llama(base, 0, num_hidden_layers=30)  # as deep as what the spaces are written for
        for seed, path in enumerate(sorted(named)):
            if path.parent == base.parent / "adapters":
                tiny.adapter(path, base, seed)
    for file in SUITES:
        suite = yaml.safe_load(file.read_text())
        # other documents each: what is held out is not learned from
        for seed, spec in enumerate((*suite["search"], *suite["held_out"])):
            tiny.task(root / file.parent.name / suite["include_path"], spec["task"], seed=seed)
    return root


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_a_space_passes_its_check(file: Path, copies: Path) -> None:
    space = SearchSpace.load(copies / "search_spaces" / file.name)
    setup = prepare(space)
    assert len(space.parents) > 1
    assert setup.evaluator.tasks() and setup.evaluator.tasks("held_out")
    if isinstance(space.suite, Path):
        assert space.suite.parent == copies / "evals"


def test_all_methods_has_every_method_that_merges() -> None:
    text = (ROOT / "search_spaces" / "all-methods.yaml").read_text()
    assert set(yaml.safe_load(text)["methods"]) == {*METHODS, "greedy_soup"} - {"passthrough"}
