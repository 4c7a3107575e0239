"""The `merge` verb: a whole checkpoint or nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mergesearch import merge
from mergesearch.errors import ExportMismatchError, InputError
from mergesearch.exporting import write_checkpoint
from mergesearch.merging import shards
from mergesearch.recipe import load_recipe, read_recipe
from tests import tiny
from tests.merging import recipes
from tests.merging.conftest import Read


def test_a_checkpoint_has_weights_config_tokenizer_generation_config_card_and_recipe(
    models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "base", tmp_path / "base")
    GenerationConfig(max_new_tokens=7, eos_token_id=2).save_pretrained(tmp_path / "base")
    (tmp_path / "r.yaml").write_text(
        f"{{merge_method: task_arithmetic, base_model: base, tokenizer_source: base,"
        f" models: [{{model: {models}/one, parameters: {{weight: 1e-1}}}}]}}"
    )
    digest = merge(tmp_path / "r.yaml", tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    assert len(digest) == 32
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 4
    text = "w3 w1 w27"
    ours, theirs = (AutoTokenizer.from_pretrained(f)(text) for f in (out, tmp_path / "base"))
    assert ours["input_ids"] == theirs["input_ids"]
    assert GenerationConfig.from_pretrained(out).max_new_tokens == 7
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    for part in ("models:", "task_arithmetic", "weight: 0.1", "arXiv:2212.04089"):
        assert part in card
    assert str(tmp_path) not in card
    given, written = load_recipe(tmp_path / "r.yaml"), load_recipe(out / "mergekit_config.yml")
    # spelled out for mergekit, whose arithmetic is otherwise in the parents' dtype
    assert written == given.model_copy(update={"dtype": "float32", "out_dtype": "float32"})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_a_merge_loads_no_library_that_it_does_not_need(models: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(recipes.TIES.format(p=f"{models}/"))
    code = (
        "import sys; from pathlib import Path; from mergesearch import merge;"
        "merge(Path('r.yaml'), Path('out'));"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"torch", "safetensors"} <= loaded
    heavy = {"transformers", "accelerate", "peft", "lm_eval", "datasets", "optuna", "pandas"}
    assert not heavy & loaded


def test_a_checkpoint_rebuilt_from_its_own_recipe_is_the_same(read: Read, tmp_path: Path) -> None:
    first = merge(read(recipes.DARE_TIES.format(p="")), tmp_path / "first")
    assert merge(tmp_path / "first" / "mergekit_config.yml", tmp_path / "second") == first
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]


def test_a_chat_template_of_the_recipe_is_the_checkpoints(read: Read, tmp_path: Path) -> None:
    text = "chat_template: '{{ messages }}'" + recipes.LINEAR.format(p="")
    merge(read(text), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages }}"


def test_an_empty_folder_is_filled_and_a_full_one_left_untouched(
    read: Read, tmp_path: Path
) -> None:
    recipe = read(recipes.LINEAR.format(p=""))
    (tmp_path / "empty").mkdir()
    merge(recipe, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").exists()
    for taken in ("full", "file"):
        if taken == "full":
            (tmp_path / taken).mkdir()
            kept = tmp_path / taken / "precious"
        else:
            kept = tmp_path / taken
        kept.write_text("mine")
        with pytest.raises(InputError, match=f"{taken} exists and is not empty; name another"):
            merge(recipe, tmp_path / taken)
        assert kept.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious"]


def test_a_full_device_is_said_before_anything_is_written(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=10**6, used=10**6 - 1000, free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"no space left on the device for .*out: the model takes"):
        merge(read(recipes.LINEAR.format(p="")), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_good", [0, 1])
def test_a_device_that_fills_up_leaves_nothing_behind(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int
) -> None:
    finish, calls = shards.ShardWriter.finish, []

    def fails(writer: shards.ShardWriter) -> None:
        calls.append(writer)
        finish(writer)
        if len(calls) > n_good:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.ShardWriter, "finish", fails)
    with pytest.raises(InputError, match="No space left on device") as caught:
        merge(read(recipes.LINEAR.format(p="")), tmp_path / "out", max_shard_bytes=8_000)
    assert caught.value.exit_code == 2
    assert len(calls) == n_good + 1
    assert not list(tmp_path.iterdir())


def test_a_companion_that_cannot_be_written_leaves_nothing_behind(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy", fails)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*out: No space left on device"):
        merge(read(recipes.LINEAR.format(p="")), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").iterdir())


def test_what_an_interrupted_merge_left_does_not_stand_in_the_way(
    read: Read, tmp_path: Path
) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "model.safetensors").write_text("half")
    merge(read(recipes.LINEAR.format(p="")), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_hash_that_is_not_the_expected_one_leaves_nothing_behind(
    read: Read, tmp_path: Path
) -> None:
    recipe = read(recipes.LINEAR.format(p=""))
    with pytest.raises(ExportMismatchError, match="differs from the one that was scored"):
        write_checkpoint(recipe, tmp_path / "out", expected_digest="0" * 64)
    assert not list(tmp_path.iterdir())
    digest = merge(recipe, tmp_path / "out")
    assert write_checkpoint(recipe, tmp_path / "again", expected_digest=digest) == digest


@pytest.mark.parametrize("prefix", ["", "u-"], ids=["tied", "untied"])
def test_shards_have_an_index_and_load_as_the_whole_does(
    read: Read, tmp_path: Path, prefix: str
) -> None:
    recipe = read(recipes.LINEAR.format(p=prefix))
    digest = merge(recipe, tmp_path / "whole")
    assert merge(recipe, tmp_path / "parts", max_shard_bytes=8_000) == digest
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors"))
    n = len(files)
    assert n > 2
    assert files == [f"model-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    for file in files:
        tensors = load_file(tmp_path / "parts" / file)
        assert {index["weight_map"][name] for name in tensors} == {file}
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 8_000
        assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors.items())
    loaded = [
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(loaded[0][name], loaded[1][name]) for name in loaded[0])


def test_a_sharded_checkpoint_is_a_parent_again(read: Read, tmp_path: Path) -> None:
    recipe = read(recipes.TIES.format(p=""))
    digest = merge(recipe, tmp_path / "parts", max_shard_bytes=8_000)
    (tmp_path / "copy.yaml").write_text("{merge_method: passthrough, models: [{model: parts}]}")
    assert merge(tmp_path / "copy.yaml", tmp_path / "copy") == digest


def test_relatives_and_adapters_of_one_base_merge_with_it(models: Path, tmp_path: Path) -> None:
    """An adapter's delta is the full model's: base+lora merged once, then again as a parent."""
    text = "{merge_method: passthrough, models: [{model: base+lora}]}"
    merge(read_recipe(text).resolved(models), tmp_path / "full")
    arithmetic = (
        "{{merge_method: task_arithmetic, base_model: base,"
        " models: [{{model: {}, parameters: {{weight: 0.5}}}}]}}"
    )
    digests = [
        merge(read_recipe(arithmetic.format(name)).resolved(models), tmp_path / f"out-{i}")
        for i, name in enumerate(("base+lora", str(tmp_path / "full")))
    ]
    assert digests[0] == digests[1]


def test_the_verb_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        merge(tmp_path / "r.yaml", tmp_path / "out")
    tiny.llama(tmp_path / "one", 0)
    (tmp_path / "one" / "model.safetensors").unlink()
    (tmp_path / "r.yaml").write_text("{merge_method: passthrough, models: [{model: one}]}")
    with pytest.raises(InputError, match="weights in the folder"):
        merge(tmp_path / "r.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
