"""The diagnosis that the end of a search leaves in its folder, and what keeps it from it."""

from pathlib import Path

import pytest
import yaml

from mergesearch import SearchSpace, compare, search
from mergesearch.diagnosis import FILE, Diagnosis
from mergesearch.errors import CandidateError
from mergesearch.report import page
from mergesearch.searching import Silent, diagnosing
from tests import tiny


class Heard(Silent):
    """Remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)


def found_in(run: Path) -> Diagnosis:
    found = Diagnosis.of_run(run)
    assert found is not None
    return found


def test_a_search_leaves_what_compare_would_say(searched: Path) -> None:
    run = searched / "run"
    found = found_in(run)
    assert found.parts and [of.task for of in found.answers] == ["first", "second"]
    assert 'id="run-1-diagnosis"' in (run / "report.html").read_text()
    n_bytes = (run / "documents.bin").stat().st_size
    assert compare(SearchSpace.load(searched / "space.yaml"), run, device="cpu") == found
    assert (run / "documents.bin").stat().st_size == n_bytes


def test_parents_that_are_adapters_have_one(family: Path) -> None:
    parents = {}
    for seed, name in enumerate(("three", "four")):
        tiny.adapter(family / "adapters" / name, family / "models" / "base", seed)
        parents[name] = f"models/base+adapters/{name}"
    path = family / "space.yaml"
    text = yaml.safe_load(path.read_text()) | {"parents": parents}
    path.write_text(yaml.safe_dump(text | {"search": {"trials": 1}}, sort_keys=False))
    search(SearchSpace.load(path), family / "run", device="cpu")
    found = found_in(family / "run")
    assert found.parents == ("three", "four") and found.parts and found.answers


def test_weights_that_were_compared_are_not_again(
    searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = searched / "run"
    before = found_in(run)
    (run / FILE).write_text(before.model_copy(update={"answers": ()}).to_json())
    monkeypatch.setattr(diagnosing, "diagnose", None)
    search(SearchSpace.load(searched / "space.yaml"), run, device="cpu")
    assert found_in(run) == before


def test_a_damaged_one_is_made_anew(searched: Path) -> None:
    run = searched / "run"
    before = found_in(run)
    (run / FILE).write_text("{")
    search(SearchSpace.load(searched / "space.yaml"), run, device="cpu")
    assert found_in(run) == before


def test_weights_of_large_models_are_left_out_with_a_line(
    searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, heard = searched / "run", Heard()
    (run / FILE).unlink()
    monkeypatch.setattr(diagnosing, "_MOST", 10_000)
    search(SearchSpace.load(searched / "space.yaml"), run, device="cpu", observer=heard)
    (line,) = [line for line in heard.stages if "are not compared" in line]
    assert f"mergesearch compare SPACE --out {run} does it" in line
    found = found_in(run)
    assert found.parts == () and len(found.answers) == 2
    page([run])


@pytest.mark.parametrize(
    "error", [CandidateError("weights are\nnot finite"), OSError("disk full"), RuntimeError("CUDA")]
)
def test_a_search_ends_without_one_where_it_cannot_be_made(
    searched: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    run, heard = searched / "run", Heard()
    (run / FILE).unlink()
    monkeypatch.setattr(diagnosing, "diagnose", fails)
    search(SearchSpace.load(searched / "space.yaml"), run, device="cpu", observer=heard)
    (line,) = [line for line in heard.stages if "has no new diagnosis" in line]
    assert line.endswith(" ".join(str(error).split()))
    assert not (run / FILE).exists() and (run / "report.html").exists()
