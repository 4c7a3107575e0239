"""`check --plan-only`: a memory plan from configurations and indices."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mergesearch.errors import InputError
from mergesearch.parents import Parents
from mergesearch.parents.planned import PlannedCheckpoint
from mergesearch.recipe import ModelRef
from tests import tiny
from tests.cli.conftest import Cli

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "dtype": "bfloat16",
    "tie_word_embeddings": False,
}
N_PARAMETERS = 70_553_706_496  # of Llama-3-70B
PARENTS = ("chat", "code", "math", "law")


def write(folder: Path, size: int | None = 2 * N_PARAMETERS, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    if size is not None:
        names = [*PlannedCheckpoint(folder).specs]
        index = {
            "metadata": {"total_size": size},
            "weight_map": dict.fromkeys(names, "model-00001-of-00030.safetensors"),
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """Four parents of 70 billion parameters and their base, of which no weight is here."""
    for name in ("base", *PARENTS):
        write(tmp_path / name)
    data = {
        "base": "base",
        "parents": {name: name for name in PARENTS},
        "methods": {"task_arithmetic": {}, "ties": {}},
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(data))
    return tmp_path / "space.yaml"


HERE = ("--plan-only", "--device", "cuda", "--memory-budget", "800GB")


def test_four_parents_of_70b_on_two_devices_of_80_gb(space: Path, cli: Cli) -> None:
    two = (*HERE, "--devices-per-worker", "2", "--device-memory", "80GB")
    code, out, err = cli("check", space, *two)
    assert (code, err) == (0, "")
    assert "141.11 GB, 141.11 GB by its index" in out
    rows = {tuple(line.rsplit(maxsplit=3)) for line in out.splitlines() if "live model" in line}
    assert {(row[3], row[1]) for row in rows} == {("cuda:0", "70.55"), ("cuda:1", "70.55")}
    assert out.count("141.11 GB  host") == 5
    assert "scoring     not counted: the space has no suite" in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--devices-per-worker", "1", "--device-memory", "80GB"), "a budget of 80.00 GB"),
        (("--devices-per-worker", "2", "--device-memory", "60GB"), "devices_per_worker"),
    ],
)
def test_too_small_devices_are_one_line(
    space: Path, cli: Cli, options: tuple[str, ...], reason: str
) -> None:
    code, out, err = cli("check", space, *HERE, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err


def test_several_of_a_device_without_memory_of_its_own_are_refused(space: Path, cli: Cli) -> None:
    code, _, err = cli(
        "check", space, "--plan-only", "--device", "cpu", "--devices-per-worker", "2"
    )
    assert code == 2 and "devices that have memory of their own, got 2 of cpu" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="its memory is measured")
def test_the_memory_of_a_device_that_is_not_here_is_asked_for(space: Path, cli: Cli) -> None:
    code, out, err = cli("check", space, *HERE)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("; give the memory of each device, --device-memory\n")


def test_shapes_are_those_of_the_files(tmp_path: Path) -> None:
    """Of a mixture, whose files hold experts apart that the class fuses, too."""
    models = {
        "llama": tiny.llama(tmp_path / "llama", 0),
        "untied": tiny.llama(tmp_path / "untied", 0, tie_word_embeddings=False),
    }
    for name, folder in models.items():
        ref = ModelRef.model_validate(str(folder))
        written = Parents([ref]).specs(ref)
        (folder / "model.safetensors").unlink()
        planned = Parents([ref], weights=False).specs(ref)
        assert {n: s.shape for n, s in planned.items()} == {n: s.shape for n, s in written.items()}
        assert {s.dtype for s in planned.values()} == {s.dtype for s in written.values()}, name


def test_a_size_that_is_not_the_indexs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got 282\.21 GB and 141\.11 GB; correct the dtype"):
        PlannedCheckpoint(write(tmp_path / "m", 4 * N_PARAMETERS))
    with pytest.raises(InputError, match="must say the dtype"):
        write(tmp_path / "n", dtype=None)
    with pytest.raises(InputError, match="none of \\['NoModel'\\]"):
        write(tmp_path / "o", architectures=["NoModel"])


def test_a_weight_that_is_not_here_is_not_read(tmp_path: Path) -> None:
    checkpoint = PlannedCheckpoint(write(tmp_path / "m", None))
    with pytest.raises(InputError, match="the weights are not here"):
        checkpoint.read("lm_head.weight")
