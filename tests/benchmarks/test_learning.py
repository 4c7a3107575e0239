import json
from pathlib import Path

import pytest

from mergesearch.space import SearchSpace
from tests.benchmarks import learning
from tests.benchmarks.searches import Family


@pytest.fixture
def tiny(family: Path) -> Family:
    return Family("tiny", SearchSpace.load(family / "space.yaml"), n_evaluations=12)


def test_a_row_says_what_was_learned_and_what_it_took(tiny: Family, tmp_path: Path) -> None:
    settings = {"loss": "parents", "granularity": "layer", "passes": 2}
    row = learning._learned(tiny, settings, 5, 0, tmp_path / "run")
    assert (row.what, row.loss, row.n_documents, row.n_passes) == ("layer", "parents", 5, 2)
    assert row.n_numbers == 2 * (4 + 2)  # parents, layers, what is outside them
    # 5 documents of one task and the 4 that the other's limit leaves over, imitated
    assert row.n_answers == 2 * 3 * 9 + 9
    assert row.pass_ratio is not None and row.pass_ratio > 0
    assert 0 <= row.held_out <= 1


def test_a_lora_is_trained_on_the_same_documents(tiny: Family, tmp_path: Path) -> None:
    row = learning._lora(tiny, "uniform soup", 5, 0, tmp_path / "run")
    assert row.n_answers == learning._PASSES[5] * 3 * 9
    assert row.n_numbers > 1000
    assert 0 <= row.held_out <= 1


def test_a_row_that_was_kept_is_not_learned_again(
    tiny: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "_family", lambda options, work: tiny)
    work = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--no-lora"]
    learning.main([*work, "--documents", "5", "--granularity", "layer", "--loss", "labels"])
    kept = (tmp_path / "work" / "learning-demo-8-layer-labels-5.json").read_text()
    monkeypatch.setattr(learning, "_learned", pytest.fail)
    learning.main([*work, "--documents", "5", "25", "--finished"])
    written = json.loads((tmp_path / "out" / "learning-demo.json").read_text())
    assert written["rows"] == [json.loads(kept)]
    assert written["command"].endswith("--documents 5 25 --no-lora --finished")


def test_parents_become_checkpoints_once(tiny: Family, tmp_path: Path) -> None:
    space = learning._with_checkpoints(tiny, tmp_path).space
    assert [ref.model.path for ref in space.parents.values()] == [
        str(tmp_path / f"full-{name}") for name in tiny.space.parents
    ]
    weights = [Path(ref.model.path) / "model.safetensors" for ref in space.parents.values()]
    times = [file.stat().st_mtime_ns for file in weights]
    learning._with_checkpoints(tiny, tmp_path)
    assert [file.stat().st_mtime_ns for file in weights] == times
