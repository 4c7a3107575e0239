"""GGUF files, read back by transformers and by the package gguf."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import EvalResult
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mergesearch.errors import InputError
from mergesearch.exporting import ExportOptions, Selected
from mergesearch.exporting.gguf import write_gguf
from mergesearch.exporting.gguf.tokenizer import Vocabulary
from mergesearch.exporting.selected import OutType
from mergesearch.recipe import ModelRef, copy_of
from tests import tiny

pytest.importorskip("gguf")

TEXT = (
    "The quick brown fox, 1234 of them: don't jump over Größe and 日本語.\n\n  def f(x): return x"
)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.05,
}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 128}),
}


def byte_level(split: str | None = None, *, digits: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on the text."""
    backend = Tokenizer(models.BPE())
    parts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if split is not None:
        from tokenizers import Regex

        parts.append(pre_tokenizers.Split(Regex(split), behavior="isolated"))
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def sentencepiece() -> PreTrainedTokenizerFast:
    """BPE as sentencepiece's models are stored for fast tokenizers: Llama 2, Mistral."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=60))
    learned = json.loads(trained.to_str())["model"]
    pieces = [*special, *learned["vocab"]]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[tuple(merge) for merge in learned["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def model(folder: Path, family: str = "llama", words: Any = None, **changes: Any) -> Path:
    """A random model of a family with a tokenizer that GGUF holds."""
    config, auto, settings = FAMILIES[family]
    words = words or byte_level()
    torch.manual_seed(0)
    made = auto(config(**{**SIZES, **settings, "vocab_size": len(words) + 8, **changes}))
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


#: As a hub's card has it.
RESULT = EvalResult("text-generation", "own", "own", "acc", 0.9)


def written(folder: Path, out: Path, outtype: OutType = "f16") -> Path:
    """The GGUF file of a model."""
    recipe = copy_of(ModelRef.model_validate(str(folder)))
    write_gguf(Selected(recipe, ExportOptions(outtype=outtype)), out)
    (file,) = out.glob("*.gguf")
    return file


@pytest.mark.parametrize(
    ("dtype", "outtype", "is_exact"),
    [
        ("float32", "f16", False),
        ("bfloat16", "f16", True),
        ("bfloat16", "bf16", True),
        ("bfloat16", "q8_0", False),
    ],
)
def test_a_rounded_file_has_no_scores_of_the_merge(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    dtype: str,
    outtype: OutType,
    is_exact: bool,
) -> None:
    ref = ModelRef.model_validate(str(model(tmp_path / "model")))
    recipe = copy_of(ref).model_copy(update={"out_dtype": dtype})
    scored = Selected(
        recipe,
        ExportOptions(outtype=outtype),
        scores="| model | 0.9 |",
        metadata={"model_name": "winner", "eval_results": [RESULT]},
        results={".eval_results/a.yaml": "- 0.9"},
    )
    capfd.readouterr()
    write_gguf(scored, tmp_path / "out")
    assert capfd.readouterr().err == ""  # and no bar
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("model-index:" in card) is is_exact
    assert (tmp_path / "out" / ".eval_results/a.yaml").exists() is is_exact
    rounded = f"and not of this file, rounded to {outtype.upper()}, which was not scored"
    assert (rounded in card) is not is_exact


def logits(loaded: Any) -> torch.Tensor:
    ids = torch.arange(40)[None]
    with torch.no_grad():
        return loaded.eval()(ids).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_read_back_says_what_the_checkpoint_says(tmp_path: Path, family: str) -> None:
    folder = model(tmp_path / "model", family)
    file = written(folder, tmp_path / "out")
    expected = logits(AutoModelForCausalLM.from_pretrained(folder))
    found = logits(AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name))
    assert float((found - expected).norm() / expected.norm()) < 2e-3
    assert {path.name for path in file.parent.iterdir()} == {
        "README.md",
        "mergekit_config.yml",
        "model-F16.gguf",
    }


@pytest.mark.parametrize(("outtype", "error"), [("f16", 2e-3), ("bf16", 2e-2), ("q8_0", 3e-2)])
def test_each_type_is_as_near_as_its_bits_allow(
    tmp_path: Path, outtype: OutType, error: float
) -> None:
    from gguf import GGUFReader

    folder = model(tmp_path / "model")
    file = written(folder, tmp_path / "out", outtype)
    expected = logits(AutoModelForCausalLM.from_pretrained(folder))
    found = logits(AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name))
    assert 0 < float((found - expected).norm() / expected.norm()) < error
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(file).tensors}
    assert kinds["blk.0.attn_q.weight"] == outtype.upper()
    assert kinds["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize("words", [byte_level(), sentencepiece()], ids=["bytes", "sentencepiece"])
def test_a_tokenizer_read_back_gives_the_same_tokens(tmp_path: Path, words: Any) -> None:
    file = written(model(tmp_path / "model", words=words), tmp_path / "out")
    found = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in (TEXT, "unseen: ¿€?"):
        assert found(text, add_special_tokens=False).input_ids == words(text).input_ids
    assert (found.bos_token, found.eos_token) == ("<s>", "</s>")


def test_ways_to_part_a_text_have_llama_cpps_names(tmp_path: Path) -> None:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    cases: dict[str, Any] = {
        "gpt-2": byte_level(),
        "smollm": byte_level(digits=True),
        "qwen2": byte_level(PRETOKENIZE_REGEX),
    }
    for name, words in cases.items():
        words.save_pretrained(tmp_path / name)
        assert Vocabulary(tmp_path / name).parting == name
    byte_level(r"\w+").save_pretrained(tmp_path / "own")
    with pytest.raises(InputError, match="but it parts texts in a way of its own; export a chec"):
        Vocabulary(tmp_path / "own")


def test_frequencies_of_llama_3_are_written(tmp_path: Path) -> None:
    from gguf import GGUFReader

    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    file = written(model(tmp_path / "model", rope_parameters=rope), tmp_path / "out")
    factors = {t.name: t.data for t in GGUFReader(file).tensors}["rope_freqs.weight"]
    # of short waves as they are, of those beyond the old context an eighth of the frequency
    assert factors[0] == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(8.0)


def test_other_models_and_tokenizers_are_refused_in_a_line(tmp_path: Path) -> None:
    tiny.gpt2(tmp_path / "gpt2", 0)
    tiny.llama(tmp_path / "words", 0)
    model(tmp_path / "biased", attention_bias=True)
    file = model(tmp_path / "large") / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = 1e5
    save_file(tensors, file, metadata={"format": "pt"})
    for name, says in {
        "gpt2": "GGUF is written of llama, mistral, qwen2, qwen3, got gpt2; export a checkpoint",
        "words": r"tokenizer\.json: GGUF is written of .* but its model is WordLevel",
        "large": r"float16 ends at 65504, and model\.\S+ has 1e\+05; take --outtype bf16",
        "biased": r"transformers reads \S+gguf back without model\.layers\.0\.\S+bias; export a",
    }.items():
        with pytest.raises(InputError, match=says):
            written(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["biased", "gpt2", "large", "words"]


def test_a_tokenizer_without_merges_is_written_without_a_word_of_gguf(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model(tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    scored = Selected(copy_of(ModelRef.model_validate(str(folder))), ExportOptions(outtype="f16"))
    write_gguf(scored, tmp_path / "out")
    assert caplog.text == ""
