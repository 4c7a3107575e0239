"""The architectures that are written as GGUF: names, metadata and layout."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mergesearch.errors import InputError

if TYPE_CHECKING:
    from gguf import GGUFWriter


@dataclass(frozen=True)
class Architecture:
    """An architecture as llama.cpp knows it."""

    #: In the tensor maps of the package gguf.
    name: str
    #: Whether the two numbers that a rotation turns stand side by side there, and not half a head
    #: apart as in transformers: rows of queries and keys are then moved.
    interleaved: bool = False


#: By the `model_type` of transformers: dense decoders whose GGUF files transformers reads, too.
ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "mistral": Architecture("llama", interleaved=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
}
_QUERIES, _KEYS = ("q_proj.weight", "q_proj.bias"), ("k_proj.weight", "k_proj.bias")


def architecture_of(config: Any) -> Architecture:
    """Find the architecture of a transformers configuration.

    Raises:
        InputError: it is not written as GGUF.
    """
    if (found := ARCHITECTURES.get(config.model_type)) is None:
        raise InputError(
            f"GGUF is written of {', '.join(ARCHITECTURES)}, got {config.model_type}; export a "
            "checkpoint, and convert it with llama.cpp's convert_hf_to_gguf.py"
        )
    rope = config.rope_parameters["rope_type"]
    if config.hidden_act != "silu" or rope not in ("default", "linear", "llama3", "yarn"):
        raise InputError(
            f"GGUF is written of models with hidden_act silu and rope default, linear, llama3 or "
            f"yarn, got {config.hidden_act} and {rope}; export a checkpoint instead"
        )
    return found


def describe(writer: "GGUFWriter", config: Any) -> None:
    """Write what llama.cpp has to know of a model beside its tensors."""
    rope = config.rope_parameters
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_vocab_size(config.vocab_size)
    if rope["rope_type"] in ("linear", "yarn"):
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
        if original := rope.get("original_max_position_embeddings"):
            writer.add_rope_scaling_orig_ctx_len(original)


def head_dim(config: Any) -> int:
    """Give the width of an attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def laid_out(tensor: Tensor, name: str, architecture: Architecture, config: Any) -> Tensor:
    """Move rows of a tensor to where llama.cpp has them.

    Args:
        tensor: of any shape.
        name: as transformers has it.
        architecture: of the model.
        config: of the model.
    """
    if not (architecture.interleaved and name.endswith((*_QUERIES, *_KEYS))):
        return tensor
    heads = config.num_attention_heads if name.endswith(_QUERIES) else config.num_key_value_heads
    halves = tensor.unflatten(0, (heads, 2, head_dim(config) // 2))
    return halves.transpose(1, 2).flatten(0, 2).contiguous()


def frequency_factors(config: Any) -> Tensor | None:
    """Give the divisors of Llama 3's rotary frequencies; None for others.

    llama.cpp takes them from a tensor: float32 (half a head,).
    """
    if config.rope_parameters["rope_type"] != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(0, head_dim(config), 2, dtype=torch.float32) / head_dim(config)
    return config.rope_parameters["rope_theta"] ** -exponents / scaled
