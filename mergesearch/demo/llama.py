"""A tiny Llama: configuration, first weights, and forward pass in float64.

transformers' own pass computes norms and rotations in float32 whatever the weights are in, and
what float32 sums differ by from processor to processor is more than the training can round away.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

#: Float64 weights by their names in a checkpoint.
Weights = Mapping[str, Tensor]


def new_config(tokenizer: PreTrainedTokenizerFast, *, layers: int, hidden: int) -> LlamaConfig:
    """Describe a Llama with tied embeddings and four heads."""
    return LlamaConfig(
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


def new_weights(config: LlamaConfig, seed: int) -> dict[str, Tensor]:
    """Draw weights that depend on the seed alone; norms start at one."""
    generator = torch.Generator().manual_seed(seed)
    hidden, wide = config.hidden_size, config.intermediate_size

    def matrix(rows: int, columns: int) -> Tensor:
        drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        return config.initializer_range * drawn

    def norm() -> Tensor:
        return torch.ones(hidden, dtype=torch.float64)

    weights = {"model.embed_tokens.weight": matrix(config.vocab_size, hidden)}
    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}"
        weights[f"{layer}.input_layernorm.weight"] = norm()
        for name in ("q", "k", "v", "o"):
            weights[f"{layer}.self_attn.{name}_proj.weight"] = matrix(hidden, hidden)
        weights[f"{layer}.post_attention_layernorm.weight"] = norm()
        weights[f"{layer}.mlp.gate_proj.weight"] = matrix(wide, hidden)
        weights[f"{layer}.mlp.up_proj.weight"] = matrix(wide, hidden)
        weights[f"{layer}.mlp.down_proj.weight"] = matrix(hidden, wide)
    return weights | {"model.norm.weight": norm()}


def save_model(weights: Weights, config: LlamaConfig, folder: Path) -> None:
    """Write a checkpoint in float32, as transformers' `save_pretrained` would."""
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    stored = {name: weight.float() for name, weight in weights.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def logits(weights: Weights, config: LlamaConfig, tokens: Tensor) -> Tensor:
    """Return logits of the next token at each position.

    Args:
        weights: by the names of a checkpoint; the head is tied to the embeddings.
        config: of the model.
        tokens: int64, [batch, length].

    Returns:
        [batch, length, vocabulary], in the dtype of the weights.
    """
    vocabulary = weights["model.embed_tokens.weight"]
    eps = config.rms_norm_eps
    rotation = _rotation(tokens.shape[1], config, vocabulary.dtype)
    stream = embedding(tokens, vocabulary)  # [batch, length, hidden]
    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}."
        own = {k.removeprefix(layer): w for k, w in weights.items() if k.startswith(layer)}
        seen = _normed(stream, own["input_layernorm.weight"], eps)
        stream = stream + _attention(own, seen, config.num_attention_heads, rotation)
        seen = _normed(stream, own["post_attention_layernorm.weight"], eps)
        gate, up = (
            linear(seen, own["mlp.gate_proj.weight"]),
            linear(seen, own["mlp.up_proj.weight"]),
        )
        stream = stream + linear(silu(gate) * up, own["mlp.down_proj.weight"])
    return linear(_normed(stream, weights["model.norm.weight"], eps), vocabulary)


def _normed(stream: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Apply an RMS norm over the last dimension."""
    return scale * stream * torch.rsqrt(stream.square().mean(-1, keepdim=True) + eps)


def _attention(own: Weights, seen: Tensor, n_heads: int, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Attend causally, with as many key heads as query heads."""
    batch, length, hidden = seen.shape

    def heads(name: str) -> Tensor:  # [batch, heads, length, head]
        out = linear(seen, own[f"self_attn.{name}_proj.weight"])
        return out.view(batch, length, n_heads, -1).transpose(1, 2)

    query, key, value = _rotated(heads("q"), rotation), _rotated(heads("k"), rotation), heads("v")
    mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
    joined = mixed.transpose(1, 2).reshape(batch, length, hidden)
    return linear(joined, own["self_attn.o_proj.weight"])


def _rotation(length: int, config: LlamaConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of each position's angles, [length, head] both."""
    head = config.hidden_size // config.num_attention_heads
    base = config.rope_parameters["rope_theta"]
    frequencies = base ** -(torch.arange(0, head, 2, dtype=dtype) / head)
    angles = torch.outer(torch.arange(length, dtype=dtype), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Embed positions by rotation (arXiv:2104.09864), by halves as Llama does."""
    cosine, sine = rotation
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), -1) * sine
