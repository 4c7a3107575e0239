"""The spellings of configurations in the wild, brought to one that recipes have.

mergekit passes over keys that it does not know: options of its commands, what front ends and
mergekit-evolve leave behind, and what older versions had. They change no value of the result there,
and none here; each is said. Any other unknown key is a misspelling, and stays an error.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mergesearch.errors import InputError
from mergesearch.methods import METHODS

_log = logging.getLogger(__name__)

#: Keys beside the recipe's own: options of mergekit's commands, a genome's keys, names.
_KEYS = """
allow_crimes clone_tensors copy_tokenizer cuda device gpu_rich lazy_loader lazy_unpickle
lora_merge_cache lora_merge_dtype low_cpu_memory multi_gpu num_threads out_shard_size quiet
random_seed read_to_gpu safe_serialization transformers_cache trust_remote_code verbosity
write_model_card write_readme

allow_negative_weights filters layer_granularity normalize smooth

description license model_name name tags version
"""
_PASSED_OVER = frozenset(_KEYS.split())
#: Parameters of methods as they were once, which no method reads any more.
_OLD_PARAMETERS = frozenset({"embed_slerp"})
_WORDS = {"true": True, "false": False}


def respelled(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Bring a configuration to the spelling of recipes, and say what is passed over.

    Args:
        data: a mergekit configuration as YAML has it; anything in it may be of a wrong type.
        where: what to call it in a message.

    Raises:
        InputError: it is no configuration of one merge but of a mixture of experts, or of a search.
    """
    if isinstance(data.get("genome"), Mapping):
        raise InputError(
            f"{where}: a configuration of mergekit-evolve, which says what is searched and makes "
            "no one merge: give it to `mergesearch search`, or merge the configuration that a "
            "search came to"
        )
    if "experts" in data or "gate_mode" in data:
        raise InputError(
            f"{where}: a configuration of mergekit-moe, which makes a mixture of experts; "
            "mergesearch merges models of one architecture: give merge_method and models or slices"
        )
    data = _without(data, _PASSED_OVER, where)
    for part in _mappings(data.get("slices")):
        method = part.pop("merge_method", None)
        if method not in (None, data.get("merge_method")):
            _say(where, f"merge_method {method} of a slice", "the recipe's holds for all of it")
    for source in _mappings(data.get("models")):
        if source.pop("layer_range", None) is not None:
            _say(where, "layer_range in models", "write slices to take some layers")
    for scope in _scopes(data):
        if isinstance(parameters := scope.get("parameters"), dict):
            parameters = _without(parameters, _OLD_PARAMETERS, where)
            scope["parameters"] = {name: _value(name, of) for name, of in parameters.items()}
    return data


def _without(mapping: Mapping[str, Any], names: frozenset[str], where: str) -> dict[str, Any]:
    """Leave out keys that change nothing, and say so."""
    for name in (name for name in mapping if name in names):
        _say(where, str(name), "it changes nothing of the merge")
    return {name: value for name, value in mapping.items() if name not in names}


def _say(where: str, what: str, why: str) -> None:
    _log.warning("%s: %s is passed over, as mergekit does: %s", where, what, why)


def _scopes(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """List everything that may have parameters."""
    yield data
    yield from _mappings(data.get("models"))
    for part in _mappings(data.get("slices")):
        yield part
        yield from _mappings(part.get("sources"))


def _mappings(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _value(name: str, setting: Any) -> Any:
    """Read a switch that is written as a number or a word."""
    kinds = {p.kind for method in METHODS.values() for p in method.parameters if p.name == name}
    return _each(setting, _switch) if kinds == {bool} else setting


def _switch(value: Any) -> Any:
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower(), value)
    return bool(value) if value in (0, 1) else value


def _each(setting: Any, change: Callable[[Any], Any]) -> Any:
    """Change every value that a setting mentions."""
    match setting:
        case list():
            return [_each(part, change) for part in setting]
        case dict():
            return {k: _each(v, change) if k == "value" else v for k, v in setting.items()}
    return change(setting)
