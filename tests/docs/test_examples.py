"""What the pages show works: commands, spaces, suites, recipes and Python."""

import contextlib
import io
from pathlib import Path

import pytest
import typer
import yaml

from mergesearch.cli.app import app
from mergesearch.config import parse
from mergesearch.recipe import load_recipe
from mergesearch.space import SearchSettings, SearchSpace
from mergesearch.tasks import load_suite
from tests.cli.conftest import Cli
from tests.docs.pages import EXAMPLES, PAGES, ROOT, blocks, commands, name_of

COMMANDS = [
    pytest.param(words, id=f"{name_of(p)}: {' '.join(words)}")
    for p in PAGES
    for words in commands(p)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_that_a_page_shows_can_be_given(words: list[str]) -> None:
    group = typer.main.get_command(app)
    context = typer.Context(group)
    command = group.get_command(context, words[0])  # type: ignore[attr-defined]
    assert command, f"no command {words[0]}"
    command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_yaml_that_a_page_shows_is_yaml_that_a_file_holds(page: Path) -> None:
    for block in blocks(page, "yaml"):
        for file in block.included:
            assert (ROOT / file).is_file()
        if not block.included:
            list(yaml.safe_load_all(block.text))


def test_the_readme_shows_the_files_that_the_other_pages_include() -> None:
    shown = {}
    for block in blocks(ROOT / "README.md", "yaml"):
        head, _, text = block.text.partition("\n")
        shown[head.removeprefix("# ")] = text
    assert shown == {f: (EXAMPLES / f).read_text() for f in ("space.yaml", "suite.yaml")}


def test_the_search_of_stacks_that_a_page_shows_is_a_search() -> None:
    page = ROOT / "docs" / "search-spaces.md"
    (block,) = (b for b in blocks(page, "yaml") if "stacking" in b.text)
    shown = yaml.safe_load(block.text)
    space = yaml.safe_load((EXAMPLES / "space.yaml").read_text())
    parse(SearchSpace, {**space, "methods": shown["methods"], "granularity": {}}, "space")
    parse(SearchSettings, shown["search"], "search")


def test_the_yaml_files_of_the_examples_are_what_they_say(documented: Path) -> None:
    space = SearchSpace.load(documented / "space.yaml")
    assert set(space.parents) == {"sentiment", "questions"}
    assert load_suite(documented / "suite.yaml").held_out
    assert load_recipe(documented / "recipe.yaml").merge_method == "ties"


def test_getting_started_works_from_check_to_evaluate(documented: Path, cli: Cli) -> None:
    page = ROOT / "docs" / "getting-started.md"
    said = {}
    for words in commands(page):
        said[words[0]] = done = cli(*words)
        assert done.code == 0, done.err
    assert list(said) == ["check", "search", "soup", "leaderboard", "export", "merge", "evaluate"]
    assert "Nothing is wrong with this space." in said["check"].out
    assert "greedy soup" in said["leaderboard"].out
    assert (documented / "runs" / "first" / "export" / "top-1" / "model.safetensors").is_file()
    assert (documented / "OUT" / "model.safetensors").is_file()
    assert (documented / "results.json").is_file()


@pytest.mark.parametrize(
    "page", [p for p in PAGES if [b for b in blocks(p, "python") if not b.included]], ids=name_of
)
def test_python_that_a_page_shows_runs(page: Path, documented: Path) -> None:
    names: dict[str, object] = {}
    for i, block in enumerate(b for b in blocks(page, "python") if not b.included):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.text, f"{page.name}, block {i + 1}", "exec"), names)
