"""Models pushed to a hub that this machine serves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries

from mergesearch.errors import InputError
from mergesearch.exporting import RECIPE_FILE, export, push
from mergesearch.exporting.evaluations import RESULTS_FOLDER, metadata_of, result_files
from mergesearch.exporting.published import published
from mergesearch.report import entries_of
from mergesearch.runs import Record
from tests.exporting.hub import Hub, serving
from tests.report.hand_made import make_run, right

pytestmark = pytest.mark.slow

TOKEN = "hf_thisIsTheTokenOfNobody0123456789"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as served:
        yield served


def pushed(folder: Path, hub: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`mergesearch push` in a process of its own, whose hub is the one given."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # whose protocol the hub here does not speak
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "mergesearch", "push", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_runs_winner_goes_up_with_card_recipe_and_leaderboard(searched: Path, hub: Hub) -> None:
    done = pushed(searched, hub, "run", "someone/merged", "--private", "--base-model", "org/base")
    assert (done.returncode, done.stdout) == (0, f"{hub.url}/someone/merged\n"), done.stderr
    assert hub.created[0]["name"] == "merged"
    assert hub.created[0].get("private") is True or hub.created[0].get("visibility") == "private"
    exported = searched / "run" / "export" / "top-1"
    written = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert hub.files.keys() == written.keys() | {"leaderboard.json", "report.html"}
    renamed = {"README.md", RECIPE_FILE}
    assert all(hub.files[name] == written[name] for name in written if name not in renamed)
    for name in (*renamed, "report.html"):
        assert b"../" not in hub.files[name] and str(searched).encode() not in hub.files[name]
    assert hub.files[RECIPE_FILE].startswith(b"# of models on the disk where this was merged")
    assert b"base_model: org/base\n" in hub.files[RECIPE_FILE]
    assert hub.files[RECIPE_FILE] in hub.files["README.md"]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert not any(TOKEN.encode() in data for data in hub.files.values())
    (searched / "card.md").write_bytes(hub.files["README.md"])
    data = metadata_load(searched / "card.md")
    assert data is not None
    assert (data["base_model"], data["base_model_relation"]) == (["org/base"], "merge")
    assert data["tags"][:2] == ["merge", "mergesearch"]
    winner = next(e for e in entries_of(searched / "run") if e.label == "winner")
    assert winner.held_out is not None and winner.interval is not None
    (result,) = ModelCard.load(searched / "card.md").data.eval_results
    assert (result.dataset_name, result.metric_type) == ("third", "acc")
    assert result.metric_value == winner.held_out.tasks[0].value
    assert result.metric_args == {
        "interval_95": [winner.interval.low, winner.interval.high],
        "documents": 12,
        "fingerprint": winner.held_out.tasks[0].id.fingerprint,
    }


def test_an_upload_that_broke_off_goes_on_where_it_stopped(searched: Path, hub: Hub) -> None:
    (folder,) = export(searched / "run", searched / "out", max_shard_bytes=10_000)
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2
    hub.fails_after = 1
    done = pushed(searched, hub, str(folder), "someone/merged")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("; the same command goes on where it stopped")
    assert len(hub.objects) == 1
    assert shards[0] not in hub.files
    hub.fails_after, before = None, list(hub.requests)
    assert pushed(searched, hub, str(folder), "someone/merged").returncode == 0
    sent = [path for method, path in hub.requests[len(before) :] if method == "PUT"]
    assert len(sent) == len(shards) - 1
    assert {name: hub.files[name] for name in shards} == {
        name: (folder / name).read_bytes() for name in shards
    }


def test_a_card_that_the_hub_refuses_is_a_line_and_no_weight_is_sent(
    searched: Path, hub: Hub
) -> None:
    (folder,) = export(searched / "run")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("tags:", "base_model:\n- a/b/c\ntags:", 1))
    done = pushed(searched, hub, str(folder), "someone/merged")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("mergesearch: someone/merged cannot be uploaded")
    assert "is not valid" in done.stderr
    assert not hub.objects and not hub.files


def test_a_dry_run_shows_files_and_card_and_asks_nobody(searched: Path, hub: Hub) -> None:
    assert pushed(searched, hub, "run", "a/b", "--dry-run").returncode == 2  # not exported yet
    export(searched / "run")
    done = pushed(searched, hub, "run", "a/b", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    listed, _, card = done.stdout.partition("---\n")
    names = [line.split()[-1] for line in listed.splitlines()]
    assert {"README.md", "model.safetensors", RECIPE_FILE, "leaderboard.json"} <= set(names)
    assert "model-index:" in card
    assert not hub.requests


def test_an_export_of_a_winner_before_is_refused_with_the_remedy(searched: Path) -> None:
    run = searched / "run"
    export(run)
    push(run, "a/b", dry_run=True)
    record = Record(run)
    rows = [row for row in record.rows if row.role in ("winner", "finalist")]
    other = next(row for row in rows if row.role == "finalist")
    record.set_best([replace(other, label="winner", role="winner")])
    with pytest.raises(InputError, match="is not the run's best model") as refused:
        push(run, "a/b", dry_run=True)
    assert other.recipe_hash[:12] in str(refused.value) and "remove the folder" in str(
        refused.value
    )
    push(run / "export" / "top-1", "a/b", dry_run=True)
    shutil.rmtree(run / "export")
    export(run)
    push(run, "a/b", dry_run=True)


def test_models_are_published_by_their_names(tmp_path: Path) -> None:
    for name in ("a/base", "a/final", "b/final"):
        (tmp_path / name).mkdir(parents=True)
    folder = tmp_path / "out"
    folder.mkdir()
    text = """merge_method: task_arithmetic
base_model: ../a/base
models:
- model: ../a/final
- model: ../a/base+../b/final
- model: org/other@main
- model: ../gone/away
"""
    (folder / RECIPE_FILE).write_text(text)
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "a/base"), "r": 8})
    )
    card, texts = published(folder, f"# Card\n{text}", ["someone/Base"])
    head, *lines = texts[RECIPE_FILE].splitlines()
    assert head.endswith("the names of the folders: final-1, final-2, away; write where yours are")
    named = [line.split(": ")[1] for line in lines if "model" in line and ": " in line]
    assert named == ["someone/Base", "final-1", "someone/Base+final-2", "org/other@main", "away"]
    assert card == f"# Card\n{texts[RECIPE_FILE]}"
    assert json.loads(texts["adapter_config.json"]) == {
        "base_model_name_or_path": "someone/Base",
        "r": 8,
    }
    assert str(tmp_path) not in "".join(texts.values()) and "../" not in "".join(texts.values())


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        ("run", "merged", "a repository is named OWNER/NAME, got 'merged'"),
        ("run", "a/b/c", "no name of a repository: "),
        ("nowhere", "a/b", "no such folder: "),
        ("tasks", "a/b", r"tasks holds no exported model \(weights and README.md\)"),
        ("broken", "a/b", r"README.md: "),
    ],
)
def test_what_cannot_be_pushed_is_said_in_a_line(
    searched: Path, source: str, name: str, says: str
) -> None:
    (folder,) = export(searched / "run", searched / "out")
    folder.rename(searched / "broken")
    (searched / "broken" / "README.md").write_text("---\ntags: [merge\n---\n")
    with pytest.raises(InputError, match=says):
        push(searched / source, name, dry_run=True)


def test_results_on_data_sets_of_the_hub_are_files_that_the_hub_reads(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        [("one", "parent", right(60), right(50)), ("winner", "winner", right(90), right(80))],
    )
    winner = next(e for e in entries_of(run) if e.label == "winner")
    assert len(metadata_of(winner)["eval_results"]) == 1
    assert result_files(winner) == {}
    hub = replace(winner, datasets={"test": ("org/exam", "hard")})
    files = result_files(hub)
    (text,) = files.values()
    assert list(files) == ["org--exam.yaml"]
    (parsed,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (parsed.dataset_id, parsed.task_id, parsed.value) == ("org/exam", "hard", 0.8)
    assert parsed.notes is not None
    assert parsed.notes.startswith("test of lm-eval, acc on 100 documents, 95 % interval 0.7")
    spoiled = replace(hub, spoiled={"test": "Exam"})
    assert (metadata_of(spoiled), result_files(spoiled)) == ({}, {})
    assert RESULTS_FOLDER == ".eval_results"
