"""Tiny random models, adapters and tasks that the tests write to disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WORDS = [f"w{i}" for i in range(28)]


def tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """One token a word, words parted by spaces."""
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "<pad>", *words])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )


def llama(
    folder: Path,
    seed: int,
    *,
    dtype: torch.dtype = torch.float32,
    base: Path | None = None,
    max_shard_size: str = "5GB",
    **changes: Any,
) -> Path:
    """A random Llama in a folder; near `base` where one is given, as a fine-tuned relative is."""
    config = LlamaConfig(
        **{
            "vocab_size": 32,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 3,
            "initializer_range": 0.3,
            **changes,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        if base is not None:
            origin = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict()
            relative = {
                name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in origin.items()
            }
            model.load_state_dict(relative)
            model.tie_weights()
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer().save_pretrained(folder)
    return folder


def adapter(
    folder: Path,
    base: Path,
    seed: int,
    *,
    n_rows: int | None = None,
    save_embedding_layers: bool | str = "auto",
    **settings: Any,
) -> Path:
    """A random LoRA adapter of a model, or of one with other rows, none of its factors zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], **settings}
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(with_rows(base, n_rows), config)
        for name, parameter in model.named_parameters():
            # what peft starts at zero, or as it is in the base
            if "lora_A" not in name and "lora_embedding_B" not in name and parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
    return folder


def with_rows(base: Path, n_rows: int | None = None) -> Any:
    """A model in float32, its vocabulary's tensors of other rows where asked for."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if n_rows is not None:
        model.resize_token_embeddings(n_rows, mean_resizing=False)
    return model


def gpt2(folder: Path, seed: int) -> Path:
    """A random GPT-2 in a folder: its linear layers store columns by rows."""
    config = GPT2Config(
        vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3
    )
    config.bos_token_id, config.eos_token_id = 1, 2
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def task(folder: Path, name: str, n_documents: int = 12, seed: int = 0, **changes: Any) -> Path:
    """A multiple-choice task over random words, its data beside its YAML."""
    generator = torch.Generator().manual_seed(seed)

    def words(n: int) -> list[str]:
        return [WORDS[int(i)] for i in torch.randint(len(WORDS), (n,), generator=generator)]

    documents = [
        {"text": " ".join(words(6)), "choices": [words(1)[0], " ".join(words(2))], "label": i % 2}
        for i in range(n_documents)
    ]
    return write_task(folder, name, documents, **changes)


def write_task(
    folder: Path, name: str, documents: Sequence[Mapping[str, Any]], **changes: Any
) -> Path:
    """An lm-eval task YAML and its documents as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(json.dumps(document) for document in documents)
    (folder / f"{name}.jsonl").write_text(lines + "\n")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML
    return path


SPACE = """\
base: models/base
parents:
  one: models/one
  two: models/two
granularity: {blocks: 2}
methods:
  linear: {}
  task_arithmetic: {}
  ties: {}
suite: suite.yaml
search: {trials: 8}
"""
SUITE = """\
include_path: tasks
search:
  - {task: first, metric: acc}
  - {task: second, metric: acc, weight: 2, limit: 8}
held_out:
  - {task: third, metric: acc}
"""


def family(folder: Path) -> Path:
    """A base, two relatives, tasks, a suite and a space; the folder of `space.yaml`."""
    base = llama(folder / "models" / "base", 0)
    for seed, name in enumerate(("one", "two"), start=1):
        llama(folder / "models" / name, seed, base=base)
    for seed, name in enumerate(("first", "second", "third")):
        task(folder / "tasks", name, seed=seed)
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "space.yaml").write_text(SPACE)
    return folder
