"""Plain training of a tiny Llama: one AdamW loop, and all randomness from explicit generators."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mergesearch.demo.skills import SKILLS, Document, draw

IGNORED = -100  # the label that cross_entropy skips


@dataclass(frozen=True)
class Example:
    """A text to train on: its tokens, and the first one whose prediction counts."""

    tokens: list[int]
    first_target: int


def new_model(
    tokenizer: PreTrainedTokenizerFast, *, layers: int, hidden: int, seed: int
) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random float32 weights, which depend on the seed alone."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.05,  # the usual 0.02 is for wide models; a narrow one starts slower
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
        architectures=["LlamaForCausalLM"],
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def base_examples(
    tokenizer: PreTrainedTokenizerFast, rng: Random, *, insight: float
) -> Iterator[Example]:
    """General text: exercises of every skill, answered by habit except for a share `insight`.

    Every token counts, so the base learns the formats and the habits, and a little of each skill.
    """
    skills = list(SKILLS)
    while True:
        document = draw(rng.choice(skills), "train", rng)
        answer = document["label"] if rng.random() < insight else 0
        yield Example(_tokens(tokenizer, document, answer), first_target=1)


def expert_examples(
    tokenizer: PreTrainedTokenizerFast, rng: Random, *, skill: str
) -> Iterator[Example]:
    """Exercises of one skill, answered rightly; only the answers count."""
    while True:
        document = draw(skill, "train", rng)
        tokens = _tokens(tokenizer, document, document["label"])
        yield Example(tokens, first_target=len(tokenizer.encode(document["prompt"])))


def train(
    model: LlamaForCausalLM,
    examples: Iterator[Example],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    progress: Callable[[str], None],
) -> None:
    """Train a model in place: AdamW, a short warm-up, then a linear fall to zero."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    warmup = max(1, min(30, steps // 4))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup) * (1 - step / steps)
    )
    model.train()
    for step in range(1, steps + 1):
        tokens, targets = _collate(
            [next(examples) for _ in range(batch)], model.config.pad_token_id
        )
        logits = model(input_ids=tokens).logits  # [batch, length, vocab]
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            progress(f"step {step}/{steps}, loss {loss.item():.3f}")
    model.eval()


def _tokens(tokenizer: PreTrainedTokenizerFast, document: Document, answer: int) -> list[int]:
    # The space is lm-eval's default `target_delimiter`.
    text = f"{document['prompt']} {document['choices'][answer]}"
    return [*tokenizer.encode(text), tokenizer.eos_token_id]


def _collate(examples: list[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and next-token targets of some examples, each [batch, length], padded on the right.

    Padding needs no attention mask: a causal model never looks to the right.
    """
    length = max(len(example.tokens) for example in examples)
    tokens = torch.full((len(examples), length), pad)
    targets = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        end, first = len(example.tokens), example.first_target
        tokens[row, :end] = torch.tensor(example.tokens)
        targets[row, first - 1 : end - 1] = tokens[row, first:end]
    return tokens, targets
