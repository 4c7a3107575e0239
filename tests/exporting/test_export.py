import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.api import soup
from mergesearch.errors import ExportMismatchError, InputError
from mergesearch.exporting import RECIPE_FILE, export
from mergesearch.merging import Digest
from mergesearch.recipe import load_recipe
from mergesearch.report import entries_of, markdown
from mergesearch.runs import Record, TrialRecord
from mergesearch.space import SearchSpace
from tests.report.hand_made import Model, make_run, right


def digest_of(folder: Path) -> str:
    """The hash of what a checkpoint holds, whatever files it is in."""
    digest = Digest()
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            digest.add(name, tensor)
    return digest.hexdigest()


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_best_candidates_are_rebuilt_bit_by_bit(searched: Path) -> None:
    run = searched / "run"
    folders = export(run, top=2)
    assert folders == [run / "export" / "top-1", run / "export" / "top-2"]
    record = Record(run, writable=False)
    for folder, label in zip(folders, ("winner", "finalist 2"), strict=True):
        (row,) = (row for row in record.rows if row.label == label)
        assert digest_of(folder) == record.digest_of(row.recipe_hash)
        recipe = load_recipe(folder / RECIPE_FILE)
        scored = record.recipe(row.recipe_hash)
        # spelled out for mergekit, whose arithmetic is otherwise in the parents' dtype
        assert (recipe.dtype, recipe.out_dtype) == ("float32", "float32")
        assert recipe.model_copy(update={"dtype": None, "out_dtype": None}) == scored
    assert listing(run / "export") == {
        f"top-{place}{name}"
        for place in (1, 2)
        for name in (
            "",
            "/README.md",
            "/config.json",
            "/generation_config.json",
            f"/{RECIPE_FILE}",
            "/model.safetensors",
            "/tokenizer.json",
            "/tokenizer_config.json",
        )
    }


def test_an_exported_model_loads_with_transformers_and_generates(searched: Path) -> None:
    (folder,) = export(searched / "run", searched / "out", max_shard_bytes=10_000)
    assert len(list(folder.glob("*.safetensors"))) > 1
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("w1 w2 w3", return_tensors="pt").input_ids
    generated = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] > ids.shape[1]
    winner = next(e for e in entries_of(searched / "run") if e.label == "winner")
    assert digest_of(folder) == winner.digest


def test_any_scored_trial_is_exported_by_its_number(searched: Path) -> None:
    run = searched / "run"
    record = Record(run, writable=False)
    trial = record.trials[6]
    (folder,) = export(run, trial=trial.number)
    assert folder.name == "trial-6"
    assert digest_of(folder) == record.digest_of(trial.recipe_hash or "")
    for number in (8, -1):
        with pytest.raises(InputError, match=f"has no scored trial {number}; there are 8: "):
            export(run, trial=number)


def test_the_card_shows_the_leaderboard_and_the_recipe(searched: Path) -> None:
    (folder,) = export(searched / "run")
    card = (folder / "README.md").read_text()
    assert markdown(entries_of(searched / "run")) in card
    assert (folder / RECIPE_FILE).read_text() in card
    assert "library_name: transformers" in card
    assert str(searched) not in card


def test_another_process_exports_the_model_that_was_scored(searched: Path) -> None:
    run = searched / "run"
    winner = next(e for e in entries_of(run) if e.label == "winner")
    done = subprocess.run(
        [sys.executable, "-m", "mergesearch", "export", "run"],
        cwd=searched,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{Path('run') / 'export' / 'top-1'}\n"
    assert digest_of(run / "export" / "top-1") == winner.digest


def test_a_parent_that_changed_since_is_noticed_and_nothing_is_left(searched: Path) -> None:
    for name in ("one", "two"):
        path = searched / "models" / name / "model.safetensors"
        tensors = load_file(path)
        weight = tensors["model.layers.3.mlp.down_proj.weight"]
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))  # by one bit
        save_file(tensors, path, metadata={"format": "pt"})
    before = listing(searched)
    with pytest.raises(ExportMismatchError, match="has a parent changed since") as caught:
        export(searched / "run", searched / "out")
    assert caught.value.exit_code == 1
    assert listing(searched) - before <= {"out"}
    assert not listing(searched / "out")


def test_a_parent_that_is_gone_is_named(searched: Path) -> None:
    for name in ("one", "two"):
        shutil.rmtree(searched / "models" / name)
    with pytest.raises(InputError, match=r"no such model folder: .*models"):
        export(searched / "run")


def test_a_folder_that_holds_something_is_not_written_over(searched: Path) -> None:
    taken = searched / "out" / "top-1"
    taken.mkdir(parents=True)
    (taken / "thesis.txt").write_text("the only copy")
    with pytest.raises(InputError, match="exists and is not empty; name another folder"):
        export(searched / "run", searched / "out")
    assert listing(searched / "out") == {"top-1", "top-1/thesis.txt"}


def test_a_full_device_is_said_before_anything_is_written(
    searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(searched)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"no space left on the device for .*top-1"):
        export(searched / "run", searched / "out")
    assert not listing(searched / "out")


def exported(monkeypatch: pytest.MonkeyPatch, run: Path, **how: Any) -> list[str]:
    """The hashes of what would be exported, in order."""
    found: list[str] = []

    def write(*_: Any, expected_digest: str, **__: Any) -> None:
        found.append(expected_digest)

    module = importlib.import_module("mergesearch.exporting.formats")
    monkeypatch.setattr(module, "write_checkpoint", write)
    export(run, **how)
    return [digest.removeprefix("digest of ") for digest in found]


def test_the_winner_comes_first_then_finalists_then_trials_by_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(
        tmp_path / "run",
        [
            # scores of trials are those of the part of the split that the search saw
            ("trial 0", "none", right(50), None),
            ("finalist 2", "finalist", right(90), None),
            ("trial 2", "none", right(70), None),
            ("winner", "winner", right(80), right(80)),
            ("finalist 3", "finalist", right(85), None),
        ],
    )
    for top in range(1, 6):
        order = ["winner", "finalist 2", "finalist 3", "trial 2", "trial 0"]
        assert exported(monkeypatch, run, top=top) == order[:top]
    with pytest.raises(InputError, match="has 5 distinct candidates, fewer than --top 6"):
        export(run, top=6)


def test_a_front_comes_before_finalists_and_is_exported_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Model] = [
        ("winner", "winner", right(80), right(80)),
        ("front 2", "front", right(70), right(80)),
        ("front 3", "front", right(60), right(80)),
        ("finalist 4", "finalist", right(75), None),
    ]
    run = make_run(tmp_path / "run", models, search={"objectives": ["score", "size"]})
    labels = [label for label, *_ in models]
    assert exported(monkeypatch, run, front=True) == labels[:3]
    assert exported(monkeypatch, run, top=4) == labels
    folders = export(run, front=True)
    assert [folder.name for folder in folders] == ["front-1", "front-2", "front-3"]


def test_a_run_for_one_objective_has_no_front_to_export(searched: Path) -> None:
    with pytest.raises(InputError, match="has no front: it was searched for one objective, score"):
        export(searched / "run", front=True)


def test_trials_that_keep_the_constraints_come_first_then_those_scored_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ["whole", "stopped", "breaks", "breaks and stopped"]
    run = make_run(tmp_path / "run", [(label, "none", None, None) for label in labels])
    record = Record(run)
    states = [(0.5, 1.0, True), (0.9, 0.5, True), (0.8, 1.0, False), (0.99, 0.5, False)]
    for number, (label, state) in enumerate(zip(labels, states, strict=True)):
        (recipe_hash,) = (row.recipe_hash for row in record.rows if row.label == label)
        score, share, feasible = state
        trial = TrialRecord(number, "linear", recipe_hash, score, share=share, feasible=feasible)
        record.add_trial(trial)
    assert exported(monkeypatch, run, top=4) == labels


@pytest.mark.parametrize("greedy", [True, False])
def test_a_run_of_soups_exports_its_soup(family: Path, greedy: bool) -> None:
    run = family / "run"
    outcome = soup(SearchSpace.load(family / "space.yaml"), run, greedy=greedy, device="cpu")
    (folder,) = export(run)
    assert digest_of(folder) == outcome.best.digest


def test_only_runs_are_exported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        export(tmp_path)
