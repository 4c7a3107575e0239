"""Models whose shapes fit and whose meanings differ, by configuration and tokenizer."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mergesearch.errors import InputError
from mergesearch.parents import Checkpoint, Difference, Parents
from mergesearch.parents.differences import differences_of_function, refuse
from mergesearch.recipe import ModelRef
from mergesearch.recipe.reference import ModelPath
from tests import tiny


def compared(*configs: dict[str, Any]) -> dict[str, Difference]:
    """The differences of configurations called one, two, ..., by field."""
    paths = [ModelPath(path=f"/models/{name}") for name in ("one", "two", "three", "four")]
    checkpoints = [cast(Checkpoint, SimpleNamespace(config=config)) for config in configs]
    found = differences_of_function(dict(zip(paths, checkpoints, strict=False)))
    return {difference.field: difference for difference in found}


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("llama", {}, {"rope_theta": 10000, "rope_scaling": None}),
        (
            "llama",
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {
                "rope_parameters": {
                    "rope_type": "linear",
                    "factor": 2.0,
                    "rope_theta": 500000.0,
                }
            },
        ),
        ("gpt_neox", {"rotary_pct": 0.25, "rotary_emb_base": 10000}, {}),
        ("mixtral", {"head_dim": 128}, {}),
        ("gpt2", {"n_head": 12}, {"num_attention_heads": 12}),
        ("llama", {"hidden_act": "silu"}, {"hidden_act": "swish"}),
        ("llama", {"pad_token_id": 3, "use_cache": False, "dtype": "float16"}, {"eos_token_id": 7}),
        ("llama", {"attention_dropout": 0.1, "unsloth_version": "1"}, {"architectures": ["X"]}),
        ("qwen2", {"num_hidden_layers": 4}, {"num_hidden_layers": 6}),
        ("of its own", {"rotary_pct": 0.5}, {"rotary_pct": 0.5, "auto_map": {}, "_x": 1}),
    ],
)
def test_spellings_depths_and_what_is_for_training_are_no_differences(
    kind: str, one: dict[str, Any], two: dict[str, Any]
) -> None:
    assert compared({"model_type": kind, **one}, {"model_type": kind, **two}) == {}


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gemma3", "t5", "mpt", "phi", "falcon_h1"])
def test_a_written_configuration_is_the_one_of_its_defaults(kind: str) -> None:
    config = CONFIG_MAPPING[kind]()
    assert compared(config.to_dict(), {"model_type": kind}) == {}


OF_FUNCTION: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("llama", {"num_attention_heads": 32}, {"num_attention_heads": 16}, "num_attention_heads"),
    ("llama", {"num_key_value_heads": 8}, {"num_key_value_heads": 4}, "num_key_value_heads"),
    ("gpt2", {"n_head": 12}, {"n_head": 6}, "n_head"),
    ("llama", {"hidden_act": "silu"}, {"hidden_act": "gelu"}, "hidden_act"),
    ("t5", {}, {"feed_forward_proj": "gated-gelu"}, "feed_forward_proj"),
    ("gpt_neox", {}, {"use_parallel_residual": False}, "use_parallel_residual"),
    ("gpt_neox", {}, {"rotary_pct": 1.0}, "rope_parameters.partial_rotary_factor"),
    ("mpt", {}, {"attn_config": {"alibi": False}}, "attn_config.alibi"),
    ("gemma3", {}, {"text_config": {"head_dim": 4}}, "text_config.head_dim"),
    ("llava", {}, {"text_config": {"model_type": "qwen2"}}, "text_config.model_type"),
    ("of its own", {"n_head": 4}, {"n_head": 8}, "n_head"),
]
OF_VALUES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("llama", {"hidden_act": "gelu"}, {"hidden_act": "gelu_new"}, "hidden_act"),
    ("of its own", {}, {"n_head": 8}, "n_head"),
    ("llama", {}, {"rope_theta": 5e5}, "rope_parameters.rope_theta"),
    ("llama", {}, {"rms_norm_eps": 1e-5}, "rms_norm_eps"),
    ("mistral", {}, {"sliding_window": None}, "sliding_window"),
    ("granite", {}, {"residual_multiplier": 0.2}, "residual_multiplier"),
    ("gemma2", {}, {"final_logit_softcapping": None}, "final_logit_softcapping"),
]


@pytest.mark.parametrize(("kind", "one", "two", "field"), OF_FUNCTION)
def test_the_same_weights_as_another_function_are_an_error(
    kind: str, one: dict[str, Any], two: dict[str, Any], field: str
) -> None:
    assert compared({"model_type": kind, **one}, {"model_type": kind, **two})[field].is_error


@pytest.mark.parametrize(("kind", "one", "two", "field"), OF_VALUES)
def test_other_values_are_no_error(
    kind: str, one: dict[str, Any], two: dict[str, Any], field: str
) -> None:
    found = compared({"model_type": kind, **one}, {"model_type": kind, **two})
    assert field in found
    assert not any(difference.is_error for difference in found.values())


def test_a_way_to_scale_positions_is_one_line() -> None:
    scaled = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled["original_max_position_embeddings"] = 2048
    found = compared({"model_type": "llama"}, {"model_type": "llama", "rope_scaling": scaled})
    assert [str(difference) for difference in found.values()] == [
        'rope_parameters.rope_type is "default" in one, "llama3" in two'
    ]


def test_layers_of_one_depth_are_compared_and_of_several_not() -> None:
    def of(*kinds: str) -> dict[str, Any]:
        types = [f"{kind}_attention" for kind in kinds]
        return {"model_type": "qwen3", "num_hidden_layers": len(kinds), "layer_types": types}

    assert compared(of("full", "full"), of("full")) == {}
    found = compared(of("full", "full"), of("full", "sliding"))
    assert [d.field for d in found.values() if "layer" in d.field] == ["layer_types[1]"]


def test_a_line_groups_models_by_value_and_the_error_names_every_field() -> None:
    plain = {"model_type": "llama", "num_key_value_heads": 8}
    found = compared(plain, plain, plain | {"hidden_act": "relu", "num_key_value_heads": 4}, plain)
    assert str(found["hidden_act"]) == 'hidden_act is "silu" in one, two and four, "relu" in three'
    assert str(found["num_key_value_heads"]) == (
        "num_key_value_heads is 8 in one, two and four, 4 in three"
    )
    with pytest.raises(InputError, match=r"one function, but (\w+) is .*; also \w+ differ; merge"):
        refuse(found.values())


@pytest.mark.parametrize(
    "broken", [{"num_attention_heads": 0}, {"hidden_act": 5}, {"rope_scaling": [1]}]
)
def test_what_transformers_cannot_build_is_compared_as_it_stands(broken: dict[str, Any]) -> None:
    found = compared({"model_type": "llama"}, {"model_type": "llama", **broken})
    assert set(found) <= set(broken)


def test_parents_refuse_other_heads_unless_they_are_allowed(tmp_path: Path) -> None:
    one = tiny.llama(tmp_path / "one", 0)
    two = tiny.llama(tmp_path / "two", 1, num_attention_heads=2, num_key_value_heads=1)
    refs = [ModelRef.model_validate(str(folder)) for folder in (one, two)]
    with pytest.raises(InputError, match=r"num_attention_heads is 4 in one, 2 in two.*--allow-mis"):
        Parents(refs)
    parents = Parents(refs, allow_mismatch=True)
    assert [d.field for d in parents.differences if d.is_error] == [
        *("num_attention_heads", "num_key_value_heads", "head_dim"),
    ]


def test_tokenizers_and_tied_heads_are_compared(tmp_path: Path) -> None:
    one = tiny.llama(tmp_path / "one", 0)
    two = tiny.llama(tmp_path / "two", 1, tie_word_embeddings=False)
    same = [ModelRef.model_validate(str(folder)) for folder in (one, one)]
    assert Parents(same).notes == ()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(two)
    tokenizer.pad_token = "</s>"
    tokenizer.chat_template = "{{ messages[0].content }} and so on, which is longer than a line"
    tokenizer.save_pretrained(two)
    path = two / "tokenizer.json"
    data = json.loads(path.read_text())
    next(token for token in data["added_tokens"] if token["id"] == 1)["lstrip"] = True
    path.write_text(json.dumps(data))

    notes = Parents([ModelRef.model_validate(str(folder)) for folder in (one, two)]).notes
    assert [note.partition(" is ")[0] for note in notes] == [
        "the models differ: tied output head",
        "the models differ: tokenizer's pad_token",
        "the models differ: tokenizer's chat_template",
        "the models differ: tokenizer's added token '<s>'",
    ]
    assert notes[1].endswith('pad_token is "<pad>" in one, "</s>" in two')
    assert "unset in one" in notes[2] and "characters" in notes[2]
    assert all("\n" not in note and len(note) < 160 for note in notes)


def test_tokens_that_end_a_text_are_compared_by_what_they_are(tmp_path: Path) -> None:
    one, two = (tiny.llama(tmp_path / name, 0) for name in ("one", "two"))
    refs = [ModelRef.model_validate(str(folder)) for folder in (one, two)]
    files = [two / name for name in ("config.json", "generation_config.json")]

    def notes(*ends: Any) -> list[str]:
        for file, ids in zip(files, ends, strict=True):
            file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": ids}))
        return [note.removeprefix("the models differ: ") for note in Parents(refs).notes]

    assert notes(2, [2]) == []
    assert notes(9, [2, 9]) == ["eos_token_id is 2 in one, [2, 9] in two"]
    assert notes(9, [2]) == ["config.json's eos_token_id is 2 in one, 9 in two"]
    assert notes(9, None) == ["eos_token_id is 2 in one, 9 in two"]
    file = two / "tokenizer.json"
    data = json.loads(file.read_text())
    vocabulary = data["model"]["vocab"]
    vocabulary["w0"], vocabulary["</s>"] = 2, 4
    next(token for token in data["added_tokens"] if token["content"] == "</s>")["id"] = 4
    file.write_text(json.dumps(data))
    for ends in files:
        ends.write_text(json.dumps(json.loads(ends.read_text()) | {"eos_token_id": 4}))
    parents = Parents(refs, vocabulary="base")
    assert not any("eos_token_id" in note for note in parents.notes)


def test_tokens_that_end_a_text_are_compared_by_ids_where_no_file_has_the_tokens(
    tmp_path: Path,
) -> None:
    one, two = (tiny.llama(tmp_path / name, 0) for name in ("one", "two"))
    (two / "tokenizer.json").unlink()
    (two / "tokenizer_config.json").unlink()
    refs = [ModelRef.model_validate(str(folder)) for folder in (one, two)]
    assert Parents(refs).notes == ()


def test_the_tokenizer_of_an_adapter_is_compared(tmp_path: Path) -> None:
    base = tiny.llama(tmp_path / "base", 0)
    adapters = [tiny.adapter(tmp_path / name, base, i) for i, name in enumerate(("bare", "chat"))]
    models = [base, *(f"{base}+{adapter}" for adapter in adapters)]
    refs = [ModelRef.model_validate(str(model)) for model in models]
    assert Parents(refs).notes == ()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(adapters[1])
    said = 'tokenizer\'s chat_template is unset in base, "{{ messages }}" in chat'
    assert Parents(refs).notes == (f"the models differ: {said}",)


def test_folders_of_one_name_are_told_apart_by_more_of_their_paths(tmp_path: Path) -> None:
    folders = [tiny.llama(tmp_path / run / "last", 0) for run in ("a", "b")]
    config = folders[1] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 1e-3}))
    notes = Parents([ModelRef.model_validate(str(folder)) for folder in folders]).notes
    assert notes == ("the models differ: rms_norm_eps is 1e-06 in a/last, 0.001 in b/last",)
