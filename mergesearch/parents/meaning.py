"""The meaning of a configuration: values by name, however they are spelled."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.parents.architecture import configuration

#: A configuration's values by name, those of its parts behind a dot.
Meaning = Mapping[str, Any]

_WORDS = """
aux cache checkpointing classifier ctc drop dropout freeze gradient impl implementation init
initializer jitter kernel kernels labels layerdrop loss losses pdrop rescale seed smoothing summary
"""
#: Words in the names of fields that matter in training, to a task's own head, or to speed only.
_ASIDE = frozenset(_WORDS.split())
_NAMES = """
auto_map n_ctx pretraining_tp quantization_config slow_but_exact task_specific_params
tie_word_embeddings torch_dtype
"""
#: Other fields of no meaning. A vocabulary's size is the matter of its policy, and if the head is
#: tied is seen in the weights.
_NOT_COMPARED = frozenset(_NAMES.split())
_ID = re.compile(r"token_(ids?|index)$|vocab_size$|^output_|^_")
#: Counts of layers: a stack may have models of several depths.
_DEPTH = re.compile(r"(^|_)(layers?|depth)($|_)")
#: The key of a way to scale positions, among its parameters.
ROPE_TYPE = "rope_type"


def meanings_of(configs: Sequence[Mapping[str, Any]]) -> tuple[Meaning, ...]:
    """Give what configurations of one family say, by the fields of their class.

    A field that is left out has the class's default. Of an architecture that transformers does not
    know, and of one that it cannot build, the keys are taken as they stand.

    Args:
        configs: of each model its `config.json`.
    """
    built = [_built(config) for config in configs]
    if any(config is None for config in built):
        return tuple(dict(_flat(_as_written(config))) for config in configs)
    return tuple(dict(_flat(_fields(config))) for config in built)


def _built(config: Mapping[str, Any]) -> Any | None:
    """Make the transformers configuration; None where no class takes it."""
    try:
        with quiet():
            return configuration(config)
    except InputError:
        return None


def _fields(config: Any) -> dict[str, Any]:
    """List what a class of transformers has as fields; of a part, its kind as well."""
    from transformers import PreTrainedConfig

    stored = vars(config)  # attributes may be refused, where layers differ in them
    common = inspect.signature(PreTrainedConfig.__init__).parameters
    own = [n for n in inspect.signature(type(config).__init__).parameters if n not in common]
    fields: dict[str, Any] = {}
    for name in own:
        value = stored.get(name)
        if isinstance(value, PreTrainedConfig):
            value = {"model_type": value.model_type, **_fields(value)}
        fields[name] = value
    heads, size = (
        stored.get(config.attribute_map.get(name, name))
        for name in ("num_attention_heads", "hidden_size")
    )
    if isinstance(heads, int) and heads > 0:  # what classes leave to the model to compute
        if fields.get("num_key_value_heads", heads) is None:
            fields["num_key_value_heads"] = heads
        if isinstance(size, int) and fields.get("head_dim") is None:
            fields["head_dim"] = stored.get("head_dim") or size // heads
    return fields


def _as_written(config: Mapping[str, Any]) -> dict[str, Any]:
    """List the keys of a `config.json` but for those that every class has."""
    from transformers import GenerationConfig, PreTrainedConfig

    common = PreTrainedConfig().to_dict().keys() | GenerationConfig().to_dict().keys()
    own = {key: value for key, value in config.items() if key not in common}
    return {key: _as_written(v) if isinstance(v, dict) else v for key, v in own.items()}


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every value by its name, but for what is not compared."""
    for key, value in fields.items():
        name = str(key)
        if _is_aside(name, value):
            continue
        if isinstance(value, Mapping):
            yield from _flat(_rope(name, value), f"{prefix}{name}.")
        else:
            # tuples are lists once they are written
            yield prefix + name, json.loads(json.dumps(value, default=str))


def _is_aside(name: str, value: Any) -> bool:
    if name in _NOT_COMPARED or _ID.search(name) or _ASIDE & set(name.lower().split("_")):
        return True
    return type(value) is int and _DEPTH.search(name) is not None


def _rope(name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Call a way to scale positions by the newer of its keys' two names."""
    if "type" not in values or not name.startswith("rope"):
        return values
    others = {key: value for key, value in values.items() if key != "type"}
    return {ROPE_TYPE: values["type"], **others}
