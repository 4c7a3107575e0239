import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

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
    with pytest.raises(InputError, match="name: is missing"):
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


class Derived(Config):
    name: str

    @cached_property
    def shout(self) -> str:
        return self.name.upper()


def test_a_copy_derives_anew_what_follows_from_its_fields() -> None:
    one = Derived(name="one")
    assert one.shout == "ONE"
    assert one.model_copy(update={"name": "two"}).shout == "TWO"
    assert one.shout == "ONE" and one == Derived(name="one")


class Odd(Config):
    name: str = ""
    number: int = 0
    share: float = Field(default=0.5, gt=0, le=1)
    switch: bool = False
    kind: Literal["one", "two"] = "one"
    pair: tuple[int, int] = (0, 1)
    table: Mapping[str, int] = {}
    inner: Inner | Path = Inner()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"name": 3}, "x: name: must be text, got 3"),
        ({"number": "many"}, "x: number: must be a whole number, got 'many'"),
        ({"number": 1.5}, "x: number: must be a whole number, got 1.5"),
        ({"share": "half"}, "x: share: must be a number, got 'half'"),
        ({"share": 0}, "x: share: must be above 0, got 0"),
        ({"share": 2}, "x: share: must be at most 1, got 2"),
        ({"share": math.inf}, "x: share: must be a finite number, got inf"),
        ({"switch": "perhaps"}, "x: switch: must be true or false, got 'perhaps'"),
        ({"kind": "three"}, "x: kind: must be 'one' or 'two', got 'three'"),
        ({"pair": 3}, "x: pair: must be a list, got 3"),
        ({"pair": [1]}, "x: pair.1: is missing"),
        ({"pair": [1, 2, 3]}, "x: pair: must have at most 2 entries, got [1, 2, 3]"),
        ({"table": [1]}, "x: table: must be a mapping of keys, got [1]"),
        ({"table": {"a": "b"}}, "x: table.a: must be a whole number, got 'b'"),
        ({"inner": 3}, "x: inner: must be a mapping of keys, got 3"),
        ({"inner": {"weight": "w"}}, "x: inner.weight: must be a number, got 'w'"),
        (3, "x: must be a mapping of keys, got 3"),
    ],
)
def test_what_is_wrong_is_said_as_a_rule_a_value_and_its_key(data: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(Odd, data, "x")
    assert str(caught.value) == says
