"""Tables whose rows come from the project and from installed packages."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mergesearch.errors import InputError
from mergesearch.plugins import Table


@dataclass(frozen=True)
class Row:
    """What the tables below hold."""

    number: int


Install = Callable[..., None]
#: What an installed package's modules say.
MODULE = """
from tests.test_plugins import Row
ROW = Row(7)
OTHER = Row(8)
NUMBER = 7
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts packages with entry points of the group `tests.rows` where Python finds them."""
    monkeypatch.syspath_prepend(tmp_path)

    def package(name: str, **rows: str) -> None:
        (tmp_path / f"{name}.py").write_text(MODULE)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        lines = [f"{row} = {value}" for row, value in rows.items()]
        (info / "entry_points.txt").write_text("\n".join(["[tests.rows]", *lines]))

    return package


def table() -> Table[Row]:
    return Table("tests.rows", Row, {"one": Row(1), "two": Row(2)})


def test_without_packages_the_rows_are_the_projects_own_in_their_order() -> None:
    rows = table()
    assert list(rows) == ["one", "two"]
    assert dict(rows) == {"one": Row(1), "two": Row(2)}
    assert len(rows) == 2
    assert rows["two"] == Row(2)
    assert rows.get("three") is None
    assert "three" not in rows
    assert repr(rows) == "Table('tests.rows': one, two)"
    with pytest.raises(KeyError, match="three"):
        rows["three"]


def test_packages_add_rows_after_the_projects_own(install: Install) -> None:
    install("first_package", seven="first_package:ROW")
    install("second_package", eight="second_package:OTHER")
    rows = table()
    assert "seven" in rows
    assert rows["seven"].number == 7
    assert list(rows) == ["one", "two", "eight", "seven"]
    assert [row.number for row in rows.values()] == [1, 2, 8, 7]
    assert rows["seven"] is rows["seven"]


def test_what_is_asked_for_by_name_loads_no_other(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("good_package", seven="good_package:ROW")
    install("bad_package", broken="bad_package:MISSING")
    rows = table()
    assert rows["one"].number == 1
    assert rows["seven"].number == 7
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("bad_package:MISSING", "cannot be loaded: AttributeError: module 'bad_package' has no"),
        ("no_such:ROW", "cannot be loaded: ModuleNotFoundError: No module named 'no_such'"),
        ("bad_package:NUMBER", "must be a Row, got a int"),
    ],
)
def test_a_row_that_does_not_load_is_one_line_that_names_it(
    install: Install, value: str, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    install("bad_package", broken=value)
    rows = table()
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            rows["broken"]
        message = str(caught.value)
        assert message.startswith(
            f"plugin 'broken' of bad_package (tests.rows = {value}) {problem}"
        )
        assert message.endswith("; mend or uninstall it")
        assert "\n" not in message
    with pytest.raises(InputError):
        rows.get("broken")


def test_a_row_that_does_not_load_is_logged_once_and_left_out_of_the_names(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("bad_package", broken="bad_package:MISSING", seven="bad_package:ROW")
    rows = table()
    for _ in range(2):
        assert list(rows) == ["one", "two", "seven"]
    assert len(rows) == 3
    assert "broken" in rows  # so that who names it is told why
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("plugin 'broken' of bad_package")


def test_no_package_replaces_a_row_and_the_one_that_would_is_named(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("bold_package", one="bold_package:ROW")
    install("early_package", seven="early_package:ROW")
    install("late_package", seven="late_package:OTHER")
    rows = table()
    assert rows["one"].number == 1
    assert list(rows) == ["one", "two", "seven"]
    texts = sorted(record.getMessage() for record in caplog.records)
    assert len(texts) == 2
    assert "of bold_package (tests.rows = bold_package:ROW) is ignored: the project has" in texts[0]
    assert "is ignored: another package has a row of that name; rename it" in texts[1]
