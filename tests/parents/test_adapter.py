"""LoRA adapters as parents: equal to what peft merges, or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergesearch.errors import InputError
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef
from tests import tiny


def ref(base: Path, adapter: Path) -> ModelRef:
    value: Any = f"{base}+{adapter}"
    return ModelRef.model_validate(value)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A model with tied and one with untied embeddings."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        tied: tiny.llama(folder / f"tied-{tied}", 0, tie_word_embeddings=tied)
        for tied in (True, False)
    }


@pytest.fixture(scope="session")
def base(bases: dict[bool, Path]) -> Path:
    return bases[True]


#: The parts of a model by what its class calls them.
MODULES = {
    "llama": {"<table>": "embed_tokens", "<att>": "q_proj", "<mlp>": "down_proj", "<norm>": "norm"},
    "gpt2": {"<table>": "wte", "<att>": "c_attn", "<mlp>": "c_fc", "<norm>": "ln_f"},
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"alpha_pattern": {"<mlp>": 32}, "rank_pattern": {"<att>": 2}},
    "all linear": {"target_modules": "all-linear"},
    "by expression": {"target_modules": r".*\.(<mlp>|<att>)"},
    "DoRA": {"use_dora": True, "use_rslora": True},
    "DoRA of embeddings": {"target_modules": ["<table>", "<att>"], "use_dora": True},
    "embeddings": {"target_modules": ["<table>", "<att>"]},
    "head": {"target_modules": ["lm_head", "<att>"]},
    "embeddings and head": {"target_modules": ["<table>", "lm_head"]},
    "embeddings and head, DoRA": {"target_modules": ["<table>", "lm_head"], "use_dora": True},
    "tied adapters": {"target_modules": ["<table>", "<att>"], "ensure_weight_tying": True},
    "retrained": {"modules_to_save": ["<table>", "lm_head"]},
    "retrained head": {"modules_to_save": ["lm_head"]},
    "retrained embeddings": {"modules_to_save": ["<table>"]},
    "retrained as one": {"modules_to_save": ["<table>"], "ensure_weight_tying": True},
    "retrained norm": {"modules_to_save": ["<norm>"]},
    "retrained blocks": {"modules_to_save": ["mlp"], "target_modules": ["<att>"]},
    "tokens": {"trainable_token_indices": [1, 5], "use_dora": True},
    "tokens of both": {"trainable_token_indices": {"<table>": [1, 5], "lm_head": [3]}},
    "all biases": {"bias": "all"},
    "biases": {"bias": "lora_only", "use_dora": True},
    "bias of LoRA": {"lora_bias": True},
    "parameters": {"target_modules": [], "target_parameters": ["<att>.weight", "<mlp>.weight"]},
    "embeddings saved": {"save_embedding_layers": True},
}


def named(value: Any, modules: dict[str, str]) -> Any:
    text = json.dumps(value)
    for placeholder, name in modules.items():
        text = text.replace(placeholder, name)
    return json.loads(text)


def check_equal_to_peft(base: Path, adapter: Path, n_rows: int | None = None) -> None:
    from peft import PeftModel

    model = tiny.with_rows(base, n_rows)
    before = {name: p.clone() for name, p in model.named_parameters()}
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    expected = dict(merged.named_parameters())
    parents = Parents([ref(base, adapter)])
    (parent,) = parents.models
    specs = parents.specs(parent)
    assert specs.keys() == expected.keys()
    for name, tensor in expected.items():
        assert specs[name].shape == tensor.shape
        assert torch.equal(parents.read(parent, name), tensor), name
    assert any(
        name not in before or not torch.equal(before[name], expected[name]) for name in specs
    )
    config = parents.checkpoint(parent).config
    assert config["vocab_size"] == merged.config.vocab_size
    assert config.get("tie_word_embeddings", True) == merged.config.tie_word_embeddings


@pytest.fixture(scope="session", params=["tied", "untied", "gpt2"])
def any_base(request: pytest.FixtureRequest, bases: dict[bool, Path]) -> Path:
    if request.param != "gpt2":
        return bases[request.param == "tied"]
    return tiny.gpt2(bases[True].parent / "gpt2", 0)


def modules_of(base: Path) -> dict[str, str]:
    return MODULES[json.loads((base / "config.json").read_text())["model_type"]]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_an_adapter_reads_as_peft_merges_it(
    any_base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    modules = modules_of(any_base)
    settings = {"target_modules": ["<att>", "<mlp>"], **settings}
    adapter = tiny.adapter(tmp_path / "lora", any_base, 1, **named(settings, modules))
    if "lora_bias" in settings and any_base.name != "gpt2":
        with pytest.raises(InputError, match="is none of its parameters"):
            Parents([ref(any_base, adapter)])
    else:
        check_equal_to_peft(any_base, adapter)


#: The rows of the model that an adapter is trained in, and how it stores them.
RESIZED: dict[str, tuple[int, dict[str, Any]]] = {
    "saved": (34, {"save_embedding_layers": True}),
    "retrained": (34, {"modules_to_save": ["<table>", "lm_head"]}),
    "retrained embeddings": (34, {"modules_to_save": ["<table>"]}),
    "with a LoRA": (40, {"target_modules": ["<table>", "lm_head"], "save_embedding_layers": True}),
    "fewer": (30, {"save_embedding_layers": True}),
    "trained tokens": (
        34,
        {
            "trainable_token_indices": {"<table>": [1, 32, 33], "lm_head": [32, 33]},
            "save_embedding_layers": False,
        },
    ),
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(("n_rows", "settings"), RESIZED.values(), ids=RESIZED)
def test_an_adapter_of_resized_embeddings_reads_as_peft_merges_it(
    any_base: Path, tmp_path: Path, n_rows: int, settings: dict[str, Any]
) -> None:
    settings = named({"target_modules": ["<att>"], **settings}, modules_of(any_base))
    adapter = tiny.adapter(tmp_path / "lora", any_base, 1, n_rows=n_rows, **settings)
    check_equal_to_peft(any_base, adapter, n_rows)


def test_rows_that_nobody_stores_are_refused(bases: dict[bool, Path], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_rows": 34, "save_embedding_layers": False}
    adapter = tiny.adapter(
        tmp_path / "lora", bases[True], 1, trainable_token_indices=[33], **settings
    )
    message = r"34 rows in model\.embed_tokens\.weight, where .* has 32, and does not store row 32"
    with pytest.raises(InputError, match=message):
        Parents([ref(bases[True], adapter)])


def test_a_base_as_published_may_lack_the_prefix_of_its_class(tmp_path: Path) -> None:
    base = tiny.gpt2(tmp_path / "base", 0)
    adapter = tiny.adapter(tmp_path / "lora", base, 1, target_modules=["c_attn", "wte"])
    expected = Parents([ref(base, adapter)])
    bare = Path(shutil.copytree(base, tmp_path / "bare"))
    weights = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(weights, bare / "model.safetensors", metadata={"format": "pt"})
    parents = Parents([ref(bare, adapter)])
    for name in weights:
        found = parents.read(parents.models[0], name)
        assert torch.equal(found, expected.read(expected.models[0], f"transformer.{name}"))


def test_factors_are_those_of_sums_with_linear_layers_alone(
    bases: dict[bool, Path], tmp_path: Path
) -> None:
    base = bases[False]
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "dora": {"use_dora": True},
        "embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
        "retrained": {"modules_to_save": ["q_proj"], "target_modules": ["v_proj"]},
    }
    found = {}
    for name, more in settings.items():
        parents = Parents([ref(base, tiny.adapter(tmp_path / name, base, 1, **more))])
        (parent,) = parents.models
        found[name] = {n for n in parents.specs(parent) if parents.factors(parent, n) is not None}
    of_layers = {f"model.layers.{i}.self_attn" for i in range(4)}
    assert found["dora"] == set()
    assert found["embeddings"] == set()  # saved with them, so the adapter's own
    assert found["retrained"] == {f"{layer}.v_proj.weight" for layer in of_layers}
    assert found["retrained"] < found["plain"]
    tied = Parents(
        [
            ref(
                bases[True],
                tiny.adapter(
                    tmp_path / "t",
                    bases[True],
                    1,
                    target_modules=["lm_head"],
                    save_embedding_layers=False,
                ),
            )
        ]
    )
    assert tied.factors(tied.models[0], "model.embed_tokens.weight") is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_sum_is_not_rounded_to_the_dtype_of_the_base(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    base = tiny.llama(tmp_path / "base", 0, dtype=dtype)
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    check_equal_to_peft(base, adapter)
    parents = Parents([ref(base, adapter)])
    changed = parents.read(ref(base, adapter), "model.layers.0.self_attn.q_proj.weight")
    assert changed.dtype == torch.float32
    assert not torch.equal(changed, changed.to(dtype).float())
    same = parents.read(ref(base, adapter), "model.layers.0.self_attn.k_proj.weight")
    assert same.dtype == dtype


def test_opening_an_adapter_leaves_the_global_random_state_alone(
    base: Path, tmp_path: Path
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    state = torch.get_rng_state()
    Parents([ref(base, adapter)])
    assert torch.equal(torch.get_rng_state(), state)


REFUSED: dict[str, dict[str, Any]] = {
    "alora_invocation_tokens": {"alora_invocation_tokens": [1, 2]},
    "layer_replication": {"layer_replication": [[0, 2], [1, 4]]},
    "use_qalora": {"use_qalora": True},
}


@pytest.mark.parametrize("key", REFUSED)
def test_an_adapter_that_is_more_than_a_change_of_tensors_is_refused(
    base: Path, tmp_path: Path, key: str
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    change_config(adapter, **REFUSED[key])
    with pytest.raises(InputError, match=f"the adapter uses {key}, which is more than a change"):
        Parents([ref(base, adapter)])


def test_a_pickled_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(InputError, match=r"only pickled weights \(adapter_model\.bin\)") as error:
        Parents([ref(base, adapter)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("start", ["pissa_niter_4", "olora", "corda", "loftq"])
def test_an_adapter_that_changed_its_base_is_refused(
    base: Path, tmp_path: Path, start: str
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    change_config(adapter, init_lora_weights=start)
    with pytest.raises(InputError, match=f"init_lora_weights={start}"):
        Parents([ref(base, adapter)])


def change_config(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 32},
        {"num_hidden_layers": 6},
        {"num_hidden_layers": 2},
        {"num_key_value_heads": 4},
    ],
    ids=str,
)
def test_an_adapter_made_for_another_base_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = tiny.llama(tmp_path / "other", 1, **changes)
    adapter = tiny.adapter(tmp_path / "lora", other, 1)
    with pytest.raises(InputError, match="lora: the adapter was made for another base than") as e:
        Parents([ref(base, adapter)])
    assert "\n" not in str(e.value)


def test_an_adapter_for_modules_that_the_base_lacks_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    change_config(adapter, target_modules=["c_attn"])
    with pytest.raises(InputError, match="the adapter was made for another base than"):
        Parents([ref(base, adapter)])


def test_a_broken_adapter_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    weights = adapter / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-10])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors: truncated"):
        Parents([ref(base, adapter)])
    weights.unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors in the folder"):
        Parents([ref(base, adapter)])
    weights.write_bytes(data)
    change_config(adapter, peft_type="IA3")
    with pytest.raises(InputError, match="only LoRA adapters are merged, got IA3; merge it into a"):
        Parents([ref(base, adapter)])
    change_config(adapter, peft_type="PROMPT_TUNING")
    with pytest.raises(InputError, match="got PROMPT_TUNING; it changes no weight, so that"):
        Parents([ref(base, adapter)])
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"no adapter_config\.json in the folder"):
        Parents([ref(base, adapter)])


@pytest.mark.parametrize("model_type", [None, "no-such-architecture"])
def test_an_adapter_on_a_base_that_transformers_cannot_build_is_refused(
    base: Path, tmp_path: Path, model_type: str | None
) -> None:
    adapter = tiny.adapter(tmp_path / "lora", base, 1)
    odd = Path(shutil.copytree(base, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    del config["model_type"]
    if model_type is not None:
        config["model_type"] = model_type
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"transformers cannot build .*odd"):
        Parents([ref(odd, adapter)])
