"""Classes of transformers, and their rules for names in files."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mergesearch.errors import InputError

#: Where a configuration has that of the language model of a vision-language model.
LANGUAGE_KEYS = ("text_config", "llm_config", "language_config")
#: Errors by which classes of transformers refuse a configuration, or find it wrong in the making.
NOT_MADE = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, InputError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)


def configuration(config: Mapping[str, Any]) -> Any:
    """Make the transformers configuration of a `config.json`.

    Raises:
        InputError: transformers knows no such architecture.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise InputError(
            f"transformers cannot build this architecture: it has no model_type {kind!r}"
        )
    try:
        return CONFIG_MAPPING[kind].from_dict(_decoded(dict(config)))
    except (*NOT_MADE, StrictDataclassError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"transformers cannot build this architecture: {reason}") from None


def _decoded(value: Any) -> Any:
    """Copy what a file says, numbers that JSON lacks as they are meant."""
    if isinstance(value, dict) and value.keys() == {"__float__"}:
        return float(value["__float__"])
    if isinstance(value, dict):
        return {key: _decoded(of) for key, of in value.items()}
    return [_decoded(of) for of in value] if isinstance(value, list) else value


def empty_model(config: Mapping[str, Any]) -> Any:
    """Make the model of the class that a `config.json` names, on the meta device.

    Returns:
        None where transformers has no such class, or cannot make it.
    """
    import transformers

    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    architecture = getattr(transformers, name, None) if isinstance(name, str) else None
    # a file may name whatever transformers has: a function, or a class that is no model's
    if not (
        isinstance(architecture, type) and issubclass(architecture, transformers.PreTrainedModel)
    ):
        return None
    try:
        with torch.device("meta"):
            return architecture(configuration(config))
    except NOT_MADE:
        return None


def stored_shapes(
    config: Mapping[str, Any], names: Iterable[str] | None = None
) -> dict[str, tuple[int, ...]]:
    """Give the shapes of a checkpoint's tensors, from its configuration alone.

    Args:
        config: the `config.json`.
        names: of the tensors in the files; what the class does not load is left out. None means
            those that transformers would write.

    Raises:
        InputError: transformers does not have the class, or it lacks some of the names' tensors.
    """
    from transformers.core_model_loading import revert_weight_conversion

    if (model := empty_model(config)) is None:
        raise InputError(
            "weights that are not here are known by their class in transformers, which has none of "
            f"{config.get('architectures')}; fetch the weights"
        )
    known = model.state_dict(keep_vars=True)
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if _is_tied(known) else set()
    own = {name: tensor.detach() for name, tensor in known.items() if name not in tied}
    written = {n: tuple(t.shape) for n, t in revert_weight_conversion(model, own).items()}
    if names is None:
        return written
    found = {}
    for name, to in destinations(model, names).items():
        if name not in written and to.pattern is not None:
            raise InputError(
                f"the shape of {name} follows from no configuration; fetch the weights"
            )
        found[name] = written.get(name, tuple(known[to.parameter].shape))
    return found


def _is_tied(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Tell if two of a model's tensors are one."""
    return len({id(tensor) for tensor in tensors.values()}) < len(tensors)


@dataclass(frozen=True)
class Destination:
    """The tensor of a module that a stored tensor becomes, or becomes a part of."""

    #: Of several that are made of it, the first.
    parameter: str
    #: Of the rule by which tensors become parts of one, or one becomes several; None: it is that
    #: tensor.
    pattern: str | None
    #: One for all spellings of the stored name.
    canonical: str


def transposed_weights(config: Mapping[str, Any], names: Iterable[str]) -> frozenset[str]:
    """Name the weights of linear layers stored columns by rows, as GPT-2's are.

    Args:
        config: the `config.json`.
        names: of a checkpoint's tensors.
    """
    from transformers.pytorch_utils import Conv1D

    if (model := empty_model(config)) is None:
        return frozenset()
    layers = (name for name, module in model.named_modules() if isinstance(module, Conv1D))
    if not (own := {f"{name}.weight" for name in layers}):
        return frozenset()
    found = destinations(model, names)
    return frozenset(n for n, to in found.items() if to.pattern is None and to.parameter in own)


def destinations(model: Any, names: Iterable[str]) -> dict[str, Destination]:
    """Find the tensors of a model that stored tensors are loaded into.

    Args:
        model: a `PreTrainedModel`, or any module, whose own names files have.
        names: of the tensors of one checkpoint.

    Returns:
        By stored name, in natural order; a tensor that the model does not have is left out.
    """
    from transformers import PreTrainedModel
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    known = model.state_dict()
    if not isinstance(model, PreTrainedModel):
        return {name: Destination(name, None, name) for name in names if name in known}
    prefix = model.base_model_prefix
    rules = conversion_rules(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    found = {}
    for name in sorted(names, key=dot_natural_key):
        parameter, pattern = rename_source_key(name, renamings, converters, prefix, known)
        if parameter not in known and name in known:
            parameter, pattern = name, None  # it has the module's name already
        if parameter in known:
            renamed = parameter
            if pattern is not None:
                renamed, _ = rename_source_key(name, renamings, [])
                renamed = _with_prefix(renamed, parameter, prefix)
            found[name] = Destination(parameter, pattern, renamed)
    return found


def tower_names(config: Mapping[str, Any], names: Iterable[str]) -> frozenset[str]:
    """List the tensors that are no language model's: of towers and projectors.

    Args:
        config: the model's `config.json`.
        names: of its tensors, as stored.

    Raises:
        InputError: transformers does not have the class, so that it is not known.
    """
    if (model := empty_model(config)) is None:
        raise InputError(
            "towers are told from the language model by the class in transformers, which has none "
            f"of {config.get('architectures')}; leave towers out, and they are merged like all else"
        )
    language = [model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings()]
    inside = {
        id(p)
        for part in language
        if part is not None
        for p in part.state_dict(keep_vars=True).values()
    }
    known = model.state_dict(keep_vars=True)
    found = destinations(model, names).items()
    return frozenset(name for name, to in found if id(known[to.parameter]) not in inside)


def head_name(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Find the output head among the names of a checkpoint's tensors, by its class.

    Args:
        config: the model's `config.json`.
        names: of its tensors, as stored.

    Returns:
        None where it stores none, or the class is not known.
    """
    if (model := empty_model(untied(config))) is None:
        return None
    head = getattr(model.get_output_embeddings(), "weight", None)
    known = model.state_dict(keep_vars=True)
    found = destinations(model, names).items()
    return next((name for name, to in found if known[to.parameter] is head), None)


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Say in a configuration, and its language model's, that the head is its own."""
    parts = {key: config[key] for key in LANGUAGE_KEYS if isinstance(config.get(key), dict)}
    changed = {key: {**of, "tie_word_embeddings": False} for key, of in parts.items()}
    return {**config, **changed, "tie_word_embeddings": False}


def conversion_rules(model: Any) -> list[Any]:
    """List transformers' own rules from a checkpoint's tensors to a model's."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    return list(get_model_conversion_mapping(model))


def spelled_as(
    config: Mapping[str, Any], first: Iterable[str], other: Iterable[str]
) -> dict[str, str]:
    """Match the names of two checkpoints of one class, spelled in two ways.

    Args:
        config: the `config.json` of both.
        first: the names that are kept.
        other: those of the other checkpoint.

    Returns:
        For each of the other's names the first's for the same tensor, or itself.
    """
    first, other = list(first), list(other)
    same = {name: name for name in other}
    if set(first) >= set(other) or (model := empty_model(config)) is None:
        return same
    ours = {to.canonical: name for name, to in destinations(model, first).items()}
    theirs = destinations(model, other)
    return same | {name: ours.get(to.canonical, name) for name, to in theirs.items()}


def _with_prefix(name: str, parameter: str, prefix: str) -> str:
    """Give a name the inner model's prefix, or take it, as a parameter has it."""
    bare = re.sub(rf"^{re.escape(prefix)}\.", "", name) if prefix else name
    return f"{prefix}.{bare}" if prefix and parameter.startswith(f"{prefix}.") else bare
