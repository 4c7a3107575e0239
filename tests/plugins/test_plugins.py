"""A package of somebody else's adds rows to the tables, and a broken one stops nobody."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.plugins.conftest import Environment


@dataclass(frozen=True)
class Plugin:
    """A row that the foreign package adds, and one of the same group that does not load."""

    group: str
    #: The table, as "module:name".
    table: str
    row: str
    broken: str
    #: The line that says why.
    problem: str
    #: The foreign package's own tests: the contract of the table's rows.
    contract: str
    #: Modules that naming the rows does not import.
    unloaded: tuple[str, ...] = ("torch",)


PLUGINS = [
    Plugin(
        group="mergesearch.methods",
        table="mergesearch.methods:METHODS",
        row="midrange",
        broken="broken",
        problem=(
            "plugin 'broken' of foreign-merge (mergesearch.methods = foreign_merge.broken:NOTHING) "
            "cannot be loaded: ModuleNotFoundError: No module named 'no_such_package'; "
            "mend or uninstall it"
        ),
        contract="check_midrange.py",
    ),
]
pytestmark = pytest.mark.slow
every_plugin = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.group)


@every_plugin
def test_a_row_of_a_package_is_in_the_table_and_a_broken_one_is_a_line(
    plugin: Plugin, environment: Environment, tmp_path: Path
) -> None:
    module, name = plugin.table.split(":")
    code = (
        f"import sys; from {module} import {name} as table; "
        f"print(*table); table[{plugin.row!r}]; print({plugin.broken!r} in table); "
        f"print(*set({plugin.unloaded!r}) & set(sys.modules))"
    )
    said = environment.run("-c", code, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    names, knows_broken, loaded = said.stdout.split("\n")[:3]
    assert plugin.row in names.split()
    assert plugin.broken not in names.split()
    assert knows_broken == "True"
    assert loaded == ""
    assert said.stderr == f"{plugin.problem}\n"


@every_plugin
def test_a_row_of_a_package_passes_the_contract_of_the_projects_own(
    plugin: Plugin, environment: Environment, tmp_path: Path
) -> None:
    tests = environment.package / plugin.contract
    said = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, cwd=tmp_path)
    assert said.returncode == 0, said.stdout
    assert " passed" in said.stdout
    assert "skipped" not in said.stdout


def recipe_of(folder: Path, method: str) -> Path:
    recipe = folder / f"{method}.yaml"
    models = [{"model": f"models/{name}"} for name in ("one", "two")]
    data = {"merge_method": method, "base_model": "models/base", "models": models}
    recipe.write_text(yaml.safe_dump(data))
    return recipe


def test_a_method_of_a_package_merges_from_the_command_line(
    environment: Environment, family: Path
) -> None:
    recipe = recipe_of(family, "midrange")
    said = environment.run("-m", "mergesearch", "merge", recipe, "merged", cwd=family)
    assert said.returncode == 0, said.stderr
    base, one, two, merged = (
        load_file(folder / "model.safetensors")
        for folder in (*(family / "models" / n for n in ("base", "one", "two")), family / "merged")
    )
    assert merged.keys() == base.keys()
    for name, tensor in merged.items():  # of two models the midrange is the mean
        assert tensor.allclose((one[name] + two[name]) / 2, atol=1e-6), name


def test_what_names_a_broken_method_is_refused_in_one_line(
    environment: Environment, family: Path
) -> None:
    problem = PLUGINS[0].problem
    space = family / "space.yaml"
    data = yaml.safe_load(space.read_text())
    space.write_text(yaml.safe_dump({**data, "methods": {"broken": {}}}))
    for command in (
        ("merge", recipe_of(family, "broken"), "merged"),
        ("search", space, "--out", "run"),
    ):
        said = environment.run("-m", "mergesearch", *command, cwd=family)
        assert said.returncode == 2, said.stderr
        assert said.stderr == f"mergesearch: {problem}\n"
    assert not (family / "merged").exists()
    assert not (family / "run").exists()


def test_an_unknown_method_is_said_with_all_that_there_are(
    environment: Environment, family: Path
) -> None:
    recipe = recipe_of(family, "midrang")
    said = environment.run("-m", "mergesearch", "merge", recipe, "merged", cwd=family)
    assert said.returncode == 2
    message = said.stderr.splitlines()[-1]
    assert "unknown merge_method 'midrang'; did you mean 'midrange'? available: linear, " in message
    assert message.endswith(", median, midrange")


#: Each table, and the row that the package of the documentation adds to it.
SHOWN = {
    "mergesearch.methods:METHODS": "median",
    "mergesearch.samplers:SAMPLERS": "thorough_tpe",
    "mergesearch.objectives:OBJECTIVES": "parents_used",
    "mergesearch.engines:ENGINES": "transcript",
    "mergesearch.report:REPORTS": "latex",
}


@pytest.mark.parametrize("table", SHOWN)
def test_a_package_adds_a_row_to_every_table(
    table: str, environment: Environment, tmp_path: Path
) -> None:
    module, name = table.split(":")
    code = f"from {module} import {name} as table; print(table[{SHOWN[table]!r}] is not None)"
    said = environment.run("-c", code, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout == "True\n"
    said = environment.run(
        "-c", f"from {module} import {name} as table; print(*table)", cwd=tmp_path
    )
    assert SHOWN[table] in said.stdout.split()
