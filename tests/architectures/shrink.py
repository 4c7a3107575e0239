"""Tiny configurations of the architectures that transformers has, from their own defaults."""

import re
from collections.abc import Mapping
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

#: Every kind of model that `AutoModelForCausalLM` makes.
KINDS = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
DEPTH, WIDTH, VOCABULARY = 2, 32, 32
#: Numbers of a configuration by their names: the first pattern that matches decides.
_SIZES: tuple[tuple[str, int], ...] = (
    (r"^(bos_token_id|decoder_start_token_id)$", 1),
    (r"^eos_token_id$", 2),
    (r"^pad_token_id$", 3),
    (r"_token_(id|index)$", 5),
    (r"vocab_size", VOCABULARY),
    (r"^(n_group|topk_group|num_nextn_predict_layers|num_mtp_\w+)$", 1),
    (r"^(first_k_dense_replace|num_dense_layers|decoder_sparse_step|moe_layer_freq)$", 1),
    (r"(experts_per_tok|num_experts_per_token|moe_k|moe_topk|top_k_experts|num_selects)", 2),
    (r"(n|num|moe_num)_\w*experts\w*$|^num_experts$", 4),
    (r"(expert|moe)\w*(intermediate|ffn|hidden)\w*", 16),
    (r"(intermediate_size|ffn_dim|d_ff|n_inner|ffn_hidden_size|block_ff_dim|mlp_dim)", 48),
    (r"^mamba_(n_heads|num_heads)$", 8),
    (r"^mamba_(d_head|head_dim)$", 8),
    (r"(lora_rank|_rank|_rank_dim)$", 8),
    (r"(linear_num_\w+_heads)$", 4),
    (r"(num_key_value_heads|num_kv_heads|n_head_kv|kv_n_heads)", 2),
    (r"(num_query_groups|num_attention_groups)", 2),
    (r"(num_attention_heads|n_heads?|num_heads|attention_heads|num_swa_attention_heads)$", 4),
    (r"(head_dim|d_kv|head_size|kv_channels|qk_\w+_dim|v_head_dim)$", 8),
    (r"(num_hidden_layers|n_layers?|num_layers|coder_layers|depth)$", DEPTH),
    (r"^rotary_dim$", 8),
    (r"^(hidden_size\w*|n_embd|d_model|dim|embed_dim|embedding_size)$", WIDTH),
    (r"^(word_embed_proj_dim|dim_model_base)$", WIDTH),
    (r"(max_position_embeddings|n_positions|n_ctx|max_seq_len)$", 128),
    (r"(max_length|seq_length|context_length)$", 128),
    (r"sliding_window(_size)?$|attention_chunk_size|local_window_size|window_size", 64),
    (r"(state_size|d_state|conv_kernel|d_conv)$", 4),
    (r"(image_size)$", 28),
    (r"(patch_size)$", 14),
)  # fmt: skip
#: What no rule about names gives.
_EXACTLY: Mapping[str, Mapping[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
        **{"n_group": 1, "topk_group": 1},
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"qk_head_dim": 16},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {
        **{"is_decoder": True, "axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 16)},
    },
    "xlm": {"emb_dim": 32},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba2": {
        **{"layers_block_type": ["mamba", "hybrid"], "hybrid_layer_ids": [1]},
        **{"mamba_headdim": 8, "n_mamba_heads": 8},
    },
}
#: Numbers that are left as they are, since their owners check them against others.
_LEFT: Mapping[str, frozenset[str]] = {
    kind: frozenset({"head_dim", "num_key_value_heads", "num_attention_heads"})
    for kind in ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")
}


def tiny_config(kind: str) -> Any:
    """Make the configuration of a tiny model of a kind.

    Raises:
        Exception: of any type, where the configuration's own checks refuse it.
    """
    made, left = CONFIG_MAPPING[kind], _LEFT.get(kind, frozenset())
    return made(**_shrunk(made(), _EXACTLY.get(kind, {}), left))


def _shrunk(
    config: Any, exactly: Mapping[str, Any], left: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Give the values of a configuration that make a tiny model."""
    values: dict[str, Any] = {}
    if hasattr(config, "kv_lora_rank"):  # latent attention has a key for each head
        exactly = {"num_key_value_heads": 4, **exactly}
    for name, value in vars(config).items():
        if name in exactly or name.startswith("_") or name in left:
            continue
        if hasattr(value, "to_dict"):
            values[name] = type(value)(**_shrunk(value, {}, left))
        elif type(value) is int:
            size = next((size for pattern, size in _SIZES if re.search(pattern, name)), None)
            if size is not None:
                values[name] = min(value, size) if value > 0 and "token" not in name else size
        elif isinstance(value, list) and "layer" in name and len(value) > DEPTH:
            values[name] = _layers(value)
    return {**values, **exactly}


def _layers(value: list[Any]) -> list[Any]:
    """Give each of two layers a kind of its own, where there are several."""
    kinds = list(dict.fromkeys(value)) if all(isinstance(v, str) for v in value) else value
    return (kinds + kinds)[:DEPTH]
