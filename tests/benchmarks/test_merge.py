import json
from pathlib import Path

import pytest

from mergesearch.methods import METHODS
from tests.benchmarks import merge, peer
from tests.benchmarks.cases import CASES


def test_every_method_has_a_case_and_no_two_candidates_are_the_same() -> None:
    # the benchmark's parents are no adapters, and there are no prompts
    of_tensors = {n for n, row in METHODS.items() if not (row.needs_adapters or row.statistics)}
    assert CASES.keys() == of_tensors
    for case in CASES.values():
        assert len({case.recipe(candidate) for candidate in range(3)}) == 3, case.method


def test_a_tiny_run_without_mergekit_is_written_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "EXECUTABLE", tmp_path / "none")
    out, options = tmp_path / "out", ["--dtypes", "bfloat16", "--repeats", "1", "--size", "tiny"]
    merge.main([*options, "--models", str(tmp_path / "models"), "--out", str(out)])

    data = json.loads((out / "merge.json").read_text())
    assert data["command"] == " ".join(["python -m tests.benchmarks.merge", *options])
    assert [family["dtype"] for family in data["families"]] == ["bfloat16"]
    for family in data["families"]:
        assert [row["method"] for row in family["rows"]] == list(CASES)
        for row in family["rows"]:
            times = [row["first"], *row["candidates"], *row["copies"], *row["input_copies"]]
            assert min(times) > 0
            assert row["bytes_read"] > 0
            assert row["peer_alone"] == []
            assert (row["eigenvectors"] is None) == (CASES[row["method"]].eigenvectors == 0)
        ours, theirs = family["to_disk"]
        assert ours["runs"][0]["peak_bytes"] > 1e7
        assert theirs["runs"] == []
        assert [(len(b["whole"]), len(b["one_block"])) for b in family["blocks"]] == [(1, 3)] * 2

    text = (out / "merge.md").read_text()
    assert str(tmp_path) not in text + json.dumps(data)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(CASES) + 2 + 2 + 2 + 2
    assert {row.count("|") for row in rows} == {13, 8, 6}
    assert "| not measured |" in text


def test_a_run_that_resumes_keeps_the_rows_that_it_does_not_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "EXECUTABLE", tmp_path / "none")
    options = ["--dtypes", "float32", "--repeats", "1", "--size", "tiny", "--out"]
    out, more = tmp_path / "out", ["--models", str(tmp_path / "models"), "--only"]

    def rows() -> dict[str, float]:
        data = json.loads((out / "merge.json").read_text())
        return {row["method"]: row["first"] for row in data["families"][0]["rows"]}

    merge.main([*options, str(out), *more, "slerp", "linear"])
    before = rows()
    merge.main([*options, str(out), *more, "slerp", "passthrough", "--resume"])
    after = rows()
    assert list(after) == ["linear", "passthrough", "slerp"]
    assert after["linear"] == before["linear"]
    assert after["slerp"] != before["slerp"]
