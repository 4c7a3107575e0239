from pathlib import Path

import pytest

from mergesearch.config import Config, parse, parse_yaml, read_yaml, unknown
from mergesearch.errors import InputError


class Inner(Config):
    weight: float = 1.0


class Outer(Config):
    name: str
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "line 2: not valid YAML: key 'a' is given twice"),
        ("a: [1", "not valid YAML"),
        ("- 1", "must be a mapping of keys, got list"),
        ("", "must be a mapping of keys, got NoneType"),
        ("a: 2026-99-99", "not valid YAML"),
        ("a: !!bool x", "not valid YAML"),
        ('a: !!int ""', "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
        ("? [1]\n: 2", "a key must be a scalar"),
    ],
)
def test_text_that_is_no_mapping_is_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "x.yaml")
    assert says in str(caught.value)
    assert str(caught.value).startswith("x.yaml")
    assert "\n" not in str(caught.value)


def test_a_merge_key_is_no_key() -> None:
    data = parse_yaml("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}", "x.yaml")
    assert data["d"] == {"b": 3, "c": 2}


def test_an_unknown_key_names_the_nearest_and_its_place() -> None:
    with pytest.raises(InputError, match=r"x.yaml: inner: unknown key 'wieght'; did you mean 'we"):
        parse(Outer, {"name": "n", "inner": {"wieght": 1}}, "x.yaml")


def test_a_missing_key_and_a_wrong_value_are_named() -> None:
    with pytest.raises(InputError, match="name: Field required"):
        parse(Outer, {}, "x.yaml")
    with pytest.raises(InputError, match=r"inner\.weight: .* finite number, got nan"):
        parse(Outer, {"name": "n", "inner": {"weight": float("nan")}}, "x.yaml")


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(name="n").name = "other"  # type: ignore[misc]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


def test_an_unknown_name_far_from_all_lists_them() -> None:
    assert unknown("method", "zzz", ["ties"]) == "unknown method 'zzz'; available: ties"
