"""Plain training of a tiny Llama that ends in the same bits on every processor."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, PreTrainedTokenizerFast

from mergesearch.demo.llama import Weights, logits
from mergesearch.demo.skills import SKILLS, Document, draw

IGNORED = -100  # the label that cross_entropy skips
#: What weights are multiples of; float32 holds all of them up to 16.
_GRID = 2.0**-20


@dataclass(frozen=True)
class Example:
    """A text to train on: its tokens, and the first one whose prediction counts."""

    tokens: list[int]
    first_target: int


def base_examples(
    tokenizer: PreTrainedTokenizerFast, rng: Random, *, insight: float
) -> Iterator[Example]:
    """Draw exercises of every skill, answered by habit but for a share `insight`.

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
    """Draw exercises of one skill, answered rightly; only the answers count."""
    while True:
        document = draw(skill, "train", rng)
        tokens = _tokens(tokenizer, document, document["label"])
        yield Example(tokens, first_target=len(tokenizer.encode(document["prompt"])))


def train(
    weights: Weights,
    config: LlamaConfig,
    examples: Iterator[Example],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    progress: Callable[[str], None],
) -> dict[str, Tensor]:
    """Train a model: AdamW, a short warm-up, then a linear fall to zero.

    Weights lie on a grid, to which each step returns them. Processors differ in the last digits of
    a float64 sum, a hundred million times less than the grid is wide, so the steps end in the same
    bits on all of them unless a weight comes to lie that near to the middle of two points.

    Args:
        weights: to start from; they are left as they are.
        config: of the model.
        examples: what to learn, without end.
        steps: how many to take.
        batch: examples a step.
        learning_rate: the highest.
        progress: is told the loss now and then.

    Returns:
        The weights trained, on the grid.
    """
    flat = torch.cat([weight.double().flatten() for weight in weights.values()])
    flat = _on_grid(flat).requires_grad_()
    optimizer = torch.optim.AdamW([flat], lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, min(30, steps // 4))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup) * (1 - step / steps)
    )
    for step in range(1, steps + 1):
        tokens, targets = _collate([next(examples) for _ in range(batch)], config.pad_token_id)
        predicted = logits(_named(flat, weights), config, tokens)  # [batch, length, vocabulary]
        loss = cross_entropy(predicted.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([flat], 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            flat.copy_(_on_grid(flat))
        if step % 50 == 0 or step == steps:
            progress(f"step {step}/{steps}, loss {loss.item():.3f}")
    return {name: part.clone() for name, part in _named(flat.detach(), weights).items()}


def _on_grid(values: Tensor) -> Tensor:
    """Round to multiples of the grid's width."""
    return (values / _GRID).round() * _GRID


def _named(flat: Tensor, weights: Weights) -> dict[str, Tensor]:
    """Split one vector into weights, in the order and shapes of others."""
    parts = flat.split([weight.numel() for weight in weights.values()])
    return {
        name: part.view(weight.shape)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


def _tokens(tokenizer: PreTrainedTokenizerFast, document: Document, answer: int) -> list[int]:
    # The space is lm-eval's default `target_delimiter`.
    text = f"{document['prompt']} {document['choices'][answer]}"
    return [*tokenizer.encode(text), tokenizer.eos_token_id]


def _collate(examples: list[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Make tokens and next-token targets, each [batch, length], padded on the right.

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
