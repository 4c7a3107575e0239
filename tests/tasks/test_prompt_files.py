"""Files of prompts: what they hold, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.errors import InputError
from mergesearch.tasks.prompt_files import read_prompts


@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("p.txt", "one\n\n  two \n \t\nthree", ("one", "  two ", "three")),
        ("p.txt", "\ufeffone\r\ntwo\r\n", ("one", "two")),
        ("p", '{"prompt": "one"}\n', ('{"prompt": "one"}',)),
        ("p.txt", "Öl\u2028 und Wein\n", ("Öl\u2028 und Wein",)),
        ("p.jsonl", '{"prompt": "a\\nb", "text": "c"}\n\n{"text": "d", "label": 1}\n"e"', None),
        ("p.JSONL", '"a\u2028b"\n', ("a\u2028b",)),
    ],
)
def test_prompts_are_read(
    tmp_path: Path, name: str, text: str, prompts: tuple[str, ...] | None
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_prompts(path) == (prompts or ("a\nb", "d", "e"))


@given(st.lists(st.text().filter(lambda text: text.strip()), min_size=1))
def test_json_lines_bring_any_text(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    assert read_prompts(path) == tuple(prompts)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.txt", None, "no such file: "),
        ("p.txt", b"", "p.txt holds no prompt; write one a line"),
        ("p.jsonl", b"\n \n", "p.jsonl holds no prompt; write one a line"),
        ("p.txt", b"\xff\xfe\x00", "cannot read .*p.txt: it is not UTF-8 text"),
        ("p.txt", b"PK\x03\x04\x00\x00", "cannot read .*p.txt: it is binary"),
        ("p.jsonl", b'"a"\n\n{"prompt": 3}', "p.jsonl, line 3: must be a JSON string, or an "),
        ("p.jsonl", b'{"question": "a"}', "line 1: .* under 'prompt' or 'text'; got '{\"question"),
        ("p.jsonl", b"one\n", "line 1: must be a JSON string, .*; got 'one'"),
        ("p.jsonl", b'{"prompt": " ", "text": "a"}', "line 1: must be a JSON string"),
        ("p.jsonl", b"[" * 100_000, "line 1: must be a JSON string"),
        ("p.json", b'["a", "b"]', "p.json: prompts are a text file .* call it .jsonl"),
    ],
)
def test_files_without_prompts_are_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_prompts(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        read_prompts(tmp_path)
