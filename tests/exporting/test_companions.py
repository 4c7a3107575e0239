"""What stands beside the weights comes along."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mergesearch.errors import InputError
from mergesearch.exporting import write_checkpoint
from mergesearch.exporting.companions import write_companions
from mergesearch.parents import Parents
from mergesearch.recipe import CHAT_TEMPLATES, Recipe, load_recipe
from tests import tiny

BESIDE = [
    *("generation_config.json", "special_tokens_map.json", "merges.txt", "vocab.json"),
    *("spiece.model", "sentencepiece.bpe.model", "tekken.json", "tokenizer.model.v3.tiktoken"),
    *("tokenizer.model.v3", "bpe.codes", "prophetnet.tokenizer", "USE_POLICY.md"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("modeling_own.py", "configuration_own.py", "LICENSE", "NOTICE.md", "USE_POLICY.txt"),
]
OWN = [
    *(
        "pytorch_model.bin",
        "optimizer.pt",
        "training_args.bin",
        "trainer_state.json",
        ".gitattributes",
    ),
    *("model.safetensors.index.json", "adapter_config.json", "quantize_config.json", "notes.md"),
    *("model.safetensors.index.fp16.json", "params.json"),
]


def recipe(folder: Path, **changes: str) -> Recipe:
    keys = "".join(f"{key}: {json.dumps(value)}\n" for key, value in changes.items())
    models = "models: [{model: one}, {model: two}]\n"
    (folder / "r.yaml").write_text(
        f"merge_method: linear\nparameters: {{weight: 1}}\n{models}{keys}"
    )
    return load_recipe(folder / "r.yaml")


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    tiny.llama(tmp_path / "one", 1)
    tiny.llama(tmp_path / "two", 2)
    return tmp_path


def test_every_file_that_a_model_needs_is_copied_and_no_other(pair: Path) -> None:
    for i, name in enumerate([*BESIDE, *OWN]):
        (pair / "one" / name).write_text(json.dumps({"i": i}))
    more = pair / "one" / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ messages }}")
    write_checkpoint(recipe(pair), pair / "out")
    for name in BESIDE:
        assert (pair / "out" / name).read_bytes() == (pair / "one" / name).read_bytes()
    written = {path.name for path in (pair / "out").iterdir()}
    assert not written & set(OWN)
    assert (pair / "out" / more.name / "tool_use.jinja").read_text() == "{{ messages }}"


def test_code_in_folders_that_auto_map_names_is_copied_and_no_other(pair: Path) -> None:
    config = pair / "one" / "config.json"
    mapped = {"AutoModel": "sub/deep.Model", "AutoConfig": "org/x--own.Config", "A": "../two.Model"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": mapped}))
    for name in ("sub/deep.py", "sub/more/part.py", "other/x.py", "sub/notes.md", "../two.py"):
        (pair / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (pair / "one" / name).write_text("raise SystemExit")
    write_checkpoint(recipe(pair), pair / "out")
    below = {str(p.relative_to(pair / "out")) for p in (pair / "out").rglob("*") if p.is_file()}
    assert {name for name in below if "/" in name} == {"sub/deep.py", "sub/more/part.py"}


def test_files_that_only_the_tokenizers_class_names_are_copied(pair: Path) -> None:
    """PhoBERT's merges lie in `bpe.codes`; a name that no list has stands for those of others."""
    for folder in (pair / "one", pair / "two"):
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("".join(f"w{i} 1\n" for i in range(20)))
        (folder / "bpe.codes").write_text("w 1</w> 5\n")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PhobertTokenizer"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mergesearch.exporting.companions._SUFFIXES", frozenset({".txt", ".json"}))
        write_checkpoint(recipe(pair), pair / "out")
    expected, found = (
        AutoTokenizer.from_pretrained(pair / name)("w1 w2")["input_ids"] for name in ("one", "out")
    )
    assert found == expected


def test_a_stale_quantization_goes(pair: Path) -> None:
    config = pair / "one" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {}}))
    write_checkpoint(recipe(pair), pair / "out")
    assert "quantization_config" not in json.loads((pair / "out" / "config.json").read_text())


def test_a_tokenizer_that_is_a_word_list_gives_the_same_tokens(pair: Path) -> None:
    for folder in (pair / "one", pair / "two"):
        (folder / "tokenizer.json").unlink()
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(27))]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    write_checkpoint(recipe(pair), pair / "out")
    expected, found = (
        AutoTokenizer.from_pretrained(pair / name)("w1 w2 what")["input_ids"]
        for name in ("one", "out")
    )
    assert found == expected
    assert len(set(found)) == 5


def test_a_tokenizer_that_comes_out_otherwise_is_refused(
    pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it needs a file that is not known to belong to it."""
    words = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "w1", "##x"])
    for folder in (pair / "one", pair / "two"):
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text(words)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    parents = Parents.of(recipe(pair), keep=False)
    monkeypatch.setattr("mergesearch.exporting.companions._SUFFIXES", frozenset({".json"}))
    monkeypatch.setattr("mergesearch.exporting.companions._BEGINNINGS", ())
    monkeypatch.setattr("mergesearch.exporting.companions._named_by_class", lambda *_: [])
    (pair / "out").mkdir()
    with pytest.raises(InputError, match="gives other tokens, or none, once it is copied"):
        write_companions(parents, pair / "out")


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_chat_template_by_its_name_is_the_exported_tokenizers(pair: Path, name: str) -> None:
    messages = [
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And then?"},
    ]
    more = pair / "one" / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ messages }}")
    for old in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        file = pair / "one" / old
        before = json.loads(file.read_text()) if file.exists() else {"kept": 1}
        file.write_text(json.dumps(before | {"chat_template": "old"}))
    write_checkpoint(recipe(pair, chat_template=name), pair / "out")
    assert not (pair / "out" / "chat_template.json").exists()
    for old in ("processor_config.json", "tokenizer_config.json"):
        settings = json.loads((pair / "out" / old).read_text())
        assert settings
        assert "chat_template" not in settings
    tokenizer = AutoTokenizer.from_pretrained(pair / "out")
    assert tokenizer.chat_template == CHAT_TEMPLATES[name]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.index("How?") < text.index("So.") < text.index("And then?")
    turns = {
        "alpaca": "### Instruction:\nHow?\n\n### Response:\nSo.",
        "chatml": "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n",
        "exaone": "[|user|]How?\n[|assistant|]So.[|endofturn|]\n",
        "llama3": "<|start_header_id|>user<|end_header_id|>\n\nHow?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|>",
        "mistral": "[INST] How? [/INST] So.",
    }
    assert turns[name] in text


def test_the_template_of_most_models_is_taken(pair: Path) -> None:
    tiny.llama(pair / "three", 3)
    (pair / "one" / "chat_template.jinja").write_text("{{ 'one' }}")
    settings = pair / "three" / "tokenizer_config.json"
    for name in ("two", "three"):
        settings = pair / name / "tokenizer_config.json"
        data = json.loads(settings.read_text()) | {"chat_template": "{{ 'most' }}"}
        settings.write_text(json.dumps(data))
    text = recipe(pair, chat_template="auto")
    write_checkpoint(text, pair / "first")  # one each
    assert (pair / "first" / "chat_template.jinja").read_text() == "{{ 'one' }}"
    (pair / "r.yaml").write_text(
        (pair / "r.yaml").read_text().replace("two}", "two}, {model: three}")
    )
    write_checkpoint(load_recipe(pair / "r.yaml"), pair / "most")
    assert AutoTokenizer.from_pretrained(pair / "most").chat_template == "{{ 'most' }}"


def test_no_template_to_take_is_an_error_and_nothing_is_written(pair: Path) -> None:
    with pytest.raises(InputError, match="none of 2 has one; name one of alpaca, chatml"):
        write_checkpoint(recipe(pair, chat_template="auto"), pair / "out")
    assert not (pair / "out").exists()


def test_templates_that_are_none_are_passed_over(pair: Path) -> None:
    settings = pair / "one" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": ["x"]}))
    with pytest.raises(InputError, match="chat_template: auto takes what most models have, and"):
        write_checkpoint(recipe(pair, chat_template="auto"), pair / "out")
