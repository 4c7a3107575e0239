"""Checkpoints as parents: what is opened, and what is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from mergesearch.errors import InputError
from mergesearch.parents import Checkpoint, Parents, in_layer, layer_of
from mergesearch.parents.held import HeldTensors
from mergesearch.parents.hub import locate
from mergesearch.parents.wrappers import unwrapped
from mergesearch.recipe import ModelRef
from tests import tiny


def ref(*parts: Path | str) -> ModelRef:
    value: Any = "+".join(str(part) for part in parts)
    return ModelRef.model_validate(value)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama(tmp_path_factory.mktemp("llama") / "model", 0)


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A checkpoint that the test may break."""
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def state(folder: Path) -> dict[str, torch.Tensor]:
    return LlamaForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("size", ["5GB", "8KB"], ids=["one file", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_tensor_is_read_as_stored(tmp_path: Path, size: str, dtype: torch.dtype) -> None:
    folder = tiny.llama(tmp_path / "m", 1, dtype=dtype, max_shard_size=size)
    assert (folder / "model.safetensors.index.json").exists() == (size == "8KB")
    parents = Parents([ref(folder)])
    specs = parents.specs(ref(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    expected = {name: p for name, p in model.named_parameters()}  # tied weights once
    assert specs.keys() == expected.keys()
    for name, tensor in expected.items():
        read = parents.read(ref(folder), name)
        assert read.dtype == specs[name].dtype == dtype
        assert specs[name].shape == tuple(tensor.shape)
        assert torch.equal(read, tensor)
    assert parents.folder == folder


def test_model_safetensors_counts_where_other_weights_lie_beside_it(copy: Path) -> None:
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    assert {spec.file.name for spec in Checkpoint(copy).specs.values()} == {"model.safetensors"}


def test_an_adapter_beside_weights_of_another_name_is_none_of_them(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "weights.safetensors")
    save_file({"x": torch.ones(1)}, copy / "adapter_model.safetensors")
    assert {spec.file.name for spec in Checkpoint(copy).specs.values()} == {"weights.safetensors"}
    (copy / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"no weights but an adapter's .* as BASE\+/"):
        Checkpoint(copy)


def test_a_mark_that_editors_put_first_is_passed_over(copy: Path) -> None:
    config = copy / "config.json"
    plain = Checkpoint(copy).config
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    assert Checkpoint(copy).config == plain


def test_a_dtype_that_is_too_wide_is_named_with_its_remedy(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    save_file({name: t.double() for name, t in tensors.items()}, copy / "model.safetensors")
    with pytest.raises(InputError, match=r"has dtype F64; .* convert it to one of them") as caught:
        Checkpoint(copy)
    assert "quanti" not in str(caught.value)


def _sharded(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _missing_shard(folder: Path) -> None:
    _sharded(folder)
    (folder / "b.safetensors").unlink()


def _no_index(folder: Path) -> None:
    _sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


def _broken_index(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        _sharded(folder)
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def _truncated(keep: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: int(len(data) * keep)])

    return change


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _pointer(name: str) -> Callable[[Path], Any]:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n"
    return lambda folder: (folder / name).write_text(text)


def _quantized(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"copy: no config\.json in the folder"),
    "config no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        r"config\.json: cannot be read as JSON",
    ),
    "config a list": (
        lambda f: (f / "config.json").write_text("[]"),
        r"config\.json: must hold a JSON object",
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"copy: no \*\.safetensors weights in the folder",
    ),
    "missing shard": (_missing_shard, r"index\.json names b\.safetensors, which is missing"),
    "no index": (_no_index, r"2 weight files \(a\.safetensors, b\.safetensors\) need a model"),
    "index no JSON": (_broken_index('{"weight_map": {'), r"index\.json: cannot be read as JSON"),
    "index empty": (_broken_index("{}"), r"index\.json names every shard, which is missing"),
    "index a list": (_broken_index('{"weight_map": ["a"]}'), r"index\.json: weight_map must map"),
    "empty file": (_truncated(0), r"model\.safetensors: truncated, or not a safetensors file"),
    "LFS weights": (
        _pointer("model.safetensors"),
        r"model\.safetensors: a pointer of git LFS; fet",
    ),
    "LFS config": (_pointer("config.json"), r"config\.json: a pointer of git LFS; fetch the file"),
    "cut header": (_truncated(0.01), r"model\.safetensors: truncated, or not a safetensors file"),
    "cut data": (_truncated(0.9), r"model\.safetensors: truncated, or not a safetensors file"),
    "pickled": (_pickled, r"copy: only pickled weights \(pytorch_model\.bin\), which can run code"),
    "int8": (_quantized, r"model\.norm\.weight has dtype I8; only F32, BF16, F16 are merged: deq"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_refused_by_name(
    copy: Path, change: Callable[[Path], Any], message: str
) -> None:
    change(copy)
    with pytest.raises(InputError, match=message) as caught:
        Parents([ref(copy)])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_split_checkpoint_reads_as_the_whole_one(copy: Path, llama: Path) -> None:
    _sharded(copy)
    whole, split = Checkpoint(llama), Checkpoint(copy)
    assert whole.specs.keys() == split.specs.keys()
    assert all(torch.equal(whole.read(name), split.read(name)) for name in whole.specs)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: name.replace("layers.1.", "layers.1._checkpoint_wrapped_module."),
        lambda name: f"_fsdp_wrapped_module.{name}".replace("mlp.", "mlp._fsdp_wrapped_module."),
    ],
)
def test_what_training_wrapped_a_model_in_is_no_part_of_its_names(
    copy: Path, llama: Path, wrapped: Callable[[str], str]
) -> None:
    tensors = load_file(copy / "model.safetensors")
    save_file({wrapped(name): of for name, of in tensors.items()}, copy / "model.safetensors")
    whole, other = Checkpoint(llama), Checkpoint(copy)
    assert other.specs.keys() == whole.specs.keys()
    parents = Parents([ref(copy), ref(llama)])
    assert all(torch.equal(whole.read(n), parents.read(ref(copy), n)) for n in whole.specs)


def test_names_that_would_be_one_stay_as_they_are() -> None:
    assert unwrapped(["module.a", "b"]) == {"module.a": "module.a", "b": "b"}
    names = ["a._orig_mod.b", "a.b"]
    assert unwrapped(names) == {name: name for name in names}


def test_shards_may_lie_in_folders_of_the_folder(copy: Path, llama: Path) -> None:
    _sharded(copy)
    (copy / "weights").mkdir()
    (copy / "a.safetensors").rename(copy / "weights" / "a.safetensors")
    index = copy / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("a.safetensors", "weights/a.safetensors"))
    whole, split = Checkpoint(llama), Checkpoint(copy)
    assert all(torch.equal(whole.read(name), split.read(name)) for name in whole.specs)
    index.write_text(index.read_text().replace("weights/a", "../copy/weights/a"))
    with pytest.raises(InputError, match="weight_map must map tensors to files of the folder"):
        Checkpoint(copy)


def test_a_folder_of_a_training_says_where_its_checkpoints_are(copy: Path) -> None:
    copy.rename(copy.parent / "checkpoint-100")
    with pytest.raises(InputError, match=r"name a folder in it \(checkpoint-100"):
        Checkpoint(copy.parent)


@pytest.mark.parametrize("kept", ["a.safetensors", "b.safetensors"])
def test_a_tensor_in_two_shards_is_the_one_that_the_index_names(copy: Path, kept: str) -> None:
    _sharded(copy)
    index = copy / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    name = "model.norm.weight"
    index.write_text(json.dumps({"weight_map": {**weight_map, name: kept}}))
    for i, file in enumerate(("a.safetensors", "b.safetensors")):
        tensors = {**load_file(copy / file), name: torch.full((16,), float(i))}
        save_file(tensors, copy / file)
    checkpoint = Checkpoint(copy)
    assert checkpoint.specs[name].file.name == kept
    assert (checkpoint.read(name) == float(kept == "b.safetensors")).all()


def test_a_tensor_that_the_index_names_and_no_shard_has_is_refused(copy: Path) -> None:
    _sharded(copy)
    index = copy / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**weight_map, "model.gone": "a.safetensors"}}))
    with pytest.raises(InputError, match=r"names model\.gone in a\.safetensors, which does not"):
        Checkpoint(copy)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        Parents([ref(tmp_path / "gone")])


def test_another_hidden_size_is_refused_with_both_values(llama: Path, tmp_path: Path) -> None:
    wide = tiny.llama(tmp_path / "wide", 1, hidden_size=32)
    with pytest.raises(InputError, match=r"hidden_size is 16 in .*model and 32 in .*wide"):
        Parents([ref(llama), ref(wide)])


def test_another_architecture_is_refused_with_both_values(llama: Path, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    with pytest.raises(InputError, match=r"model_type is 'llama' in .*model and 'qwen2' in .*copy"):
        Parents([ref(llama), ref(copy)])


def test_another_vocabulary_is_refused_at_its_first_difference(llama: Path, copy: Path) -> None:
    words = [*tiny.WORDS]
    words[5] = "other"
    tiny.tokenizer(words).save_pretrained(copy)
    with pytest.raises(
        InputError, match=r"one vocabulary: 32 .* 32 .* first at token 'other', id 9"
    ):
        Parents([ref(llama), ref(copy)])
    tiny.tokenizer(tiny.WORDS[:-1]).save_pretrained(copy)
    with pytest.raises(InputError, match=r"32 tokens in .* and 31 in .* token 'w27', id 31"):
        Parents([ref(llama), ref(copy)])


def test_a_model_without_tokenizer_may_be_a_parent(llama: Path, copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    assert Parents([ref(llama), ref(copy)]).checkpoint(ref(copy)).vocabulary is None


def test_a_model_that_is_none_of_the_parents_is_refused(llama: Path, copy: Path) -> None:
    with pytest.raises(InputError, match=r"copy, which is none of the parents: .*model"):
        Parents([ref(llama)]).specs(ref(copy))


def test_a_checkpoint_is_opened_once(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (tiny.adapter(tmp_path / name, llama, i) for i, name in enumerate(("x", "y")))
    opened: list[Path] = []
    init = Checkpoint.__init__

    def count(self: Checkpoint, folder: Path, held: HeldTensors | None = None) -> None:
        opened.append(folder)
        init(self, folder, held)

    monkeypatch.setattr(Checkpoint, "__init__", count)
    Parents([ref(llama), ref(llama, one), ref(llama, two), ref(llama)])
    assert opened == [llama]


def test_layers_are_known_by_the_first_number_in_a_name() -> None:
    assert layer_of("model.layers.13.mlp.experts.1.weight") == 13
    assert layer_of("transformer.h.0.attn.weight") == 0
    assert layer_of("model.norm.weight") is None
    assert (
        in_layer("model.layers.13.mlp.experts.1.weight", 2) == "model.layers.2.mlp.experts.1.weight"
    )
    assert in_layer("model.norm.weight", 2) == "model.norm.weight"


# The hub


@pytest.fixture
def hub(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as huggingface_hub lays it out: two revisions of one model, and an adapter."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    other = tiny.llama(tmp_path / "other", 5)
    lora = tiny.adapter(tmp_path / "lora", llama, 6)
    revisions = {"main": ("a" * 40, llama), "v2": ("b" * 40, other)}
    for ref_name, (commit, source) in revisions.items():
        _cache(cache / "models--org--tiny", ref_name, commit, source)
    _cache(cache / "models--org--lora", "main", "c" * 40, lora)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def _cache(repository: Path, ref_name: str, commit: str, source: Path) -> None:
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / ref_name).write_text(commit)
    shutil.copytree(source, repository / "snapshots" / commit)


def test_a_hub_id_is_found_in_the_cache_at_its_revision(hub: Path, llama: Path) -> None:
    models = [ref("org/tiny"), ref("org/tiny@v2"), ref(f"org/tiny@{'b' * 40}")]
    parents = Parents(models)
    snapshots = hub / "models--org--tiny" / "snapshots"
    folders = [parents.checkpoint(model).folder for model in models]
    assert folders == [snapshots / ("a" * 40), snapshots / ("b" * 40), snapshots / ("b" * 40)]
    name = "model.norm.weight"
    embedding = "model.embed_tokens.weight"
    assert torch.equal(parents.read(models[0], name), state(llama)[name])
    main, v2, commit = (parents.read(model, embedding) for model in models)
    assert not torch.equal(main, v2)
    assert torch.equal(v2, commit)


def test_a_cache_made_by_hand_may_name_its_snapshots_otherwise(hub: Path, llama: Path) -> None:
    """huggingface_hub takes such a name for a branch, when it is asked for it."""
    _cache(hub / "models--org--mine", "main", "abc123", llama)
    found = Parents([ref("org/mine")]).checkpoint(ref("org/mine")).folder
    assert found == hub / "models--org--mine" / "snapshots" / "abc123"


def test_an_adapter_may_come_from_the_hub(hub: Path, llama: Path, tmp_path: Path) -> None:
    from_hub, local = ref("org/tiny", "org/lora"), ref(llama, tmp_path / "lora")
    parents = Parents([from_hub, local])
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(parents.read(from_hub, name), parents.read(local, name))


@pytest.mark.parametrize(
    ("stored", "fetched"),
    [
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"], None),
        (["adapter_model.safetensors", "checkpoint-9/adapter_model.safetensors"], None),
        (["weights.safetensors"], ["weights.safetensors"]),
    ],
    ids=["variant", "consolidated", "adapter", "another name"],
)
def test_only_the_weights_that_are_read_come_from_the_hub(
    stored: list[str],
    fetched: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = ["config.json", *stored]
    shards = [name for name in stored if name.startswith("model-")]
    index = {"weight_map": {str(i): name for i, name in enumerate(shards)}}
    revisions = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        revisions.append(revision)
        folder = tmp_path / ("a" * 40)
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("{}")
        if shards:
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder = locate(ref("org/tiny@main").model)
    got = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.safetensors"))
    assert got == (fetched or shards or ["adapter_model.safetensors"])
    assert revisions == ["main", *["a" * 40] * (len(revisions) - 1)]  # one commit


@pytest.mark.parametrize("name", ["org/gone", "org/tiny@v9", "not an id", "tiny"])
def test_what_the_cache_lacks_is_refused_in_one_line(hub: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"no folder '.*', and no such model on the hub or in its "
    ):
        Parents([ref(name)])
