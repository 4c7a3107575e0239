"""A search whose candidates lie on two devices."""

from pathlib import Path

import pytest

from mergesearch.api import evaluate, search
from mergesearch.exporting import export
from mergesearch.searching import Silent
from mergesearch.space import SearchSpace
from tests.accelerator import DEVICES, accelerator


class _Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)


def test_what_was_scored_on_two_devices_is_exported_on_one(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("runtime", "searching.models"):
        monkeypatch.setattr(f"mergesearch.{module}.merges_on", lambda device: device)
    space, notes = SearchSpace.load(family / "space.yaml"), _Notes()
    settings = space.search.model_copy(update={"trials": 3})
    with accelerator():
        outcome = search(
            space.model_copy(update={"search": settings}),
            tmp_path / "run",
            observer=notes,
            device=str(DEVICES[0]),
            devices_per_worker=2,
            device_memory="2GB",
        )
    assert sum(line.startswith("  live model") for line in notes.said) == 2
    (checkpoint,) = export(outcome.folder)  # whose hash is that of the candidate
    assert (checkpoint / "config.json").exists()


def test_a_checkpoint_has_the_scores_that_it_has_on_one_device(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mergesearch.runtime.merges_on", lambda device: device)
    space = SearchSpace.load(family / "space.yaml")
    suite, model = space.load_suite(), str(next(iter(space.parents.values())))
    alone = evaluate(model, suite, device="cpu")
    with accelerator():
        over = {"device": str(DEVICES[0]), "devices_per_worker": 2, "device_memory": "2GB"}
        spread = evaluate(model, suite, **over)  # type: ignore[arg-type]
    assert spread.scores.total == alone.scores.total
