"""The layers of a configuration: what it and its class say of each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mergesearch.errors import InputError, RecipeError
from mergesearch.parents import LANGUAGE_KEYS, configuration

#: The keys under which a configuration says how many layers a model has.
DEPTH_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "decoder_layers",
    "num_decoder_layers",
)
#: Endings of keys that count layers; those with `every_n` are periods.
_COUNTS = ("layers", "n_layer")
_PERIOD = "every_n"
#: In a key that has the index of the last layer of a kind, as of experts.
_LAST = "layer_end"


def spelled_out(config: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Add the lists of layers that a configuration's class makes of other fields.

    As of `sliding_window_pattern` or `max_window_layers`, by which the class would make others for
    another depth.

    Args:
        config: the `config.json` of a model.
        depth: its layers.
    """
    try:
        whole = configuration(config).to_dict()
    except InputError:
        return dict(config)  # code of a model's own, which is never run
    return _with_lists(config, whole, depth, per_layer(config, depth))


def per_layer(config: Mapping[str, Any], depth: int) -> frozenset[str]:
    """Find the lists that a configuration's class makes as long as the model is deep.

    A model one layer deeper has them one entry longer, which a list of tokens has not.
    """
    try:
        deeper = configuration(_deeper(config, depth)).to_dict()
    except InputError:
        return frozenset()
    return frozenset(
        key
        for part in _language_parts(deeper)
        for key, value in part.items()
        if isinstance(value, list) and len(value) == depth + 1
    )


def of_layers(
    config: Mapping[str, Any],
    layers: Sequence[tuple[Mapping[str, Any], int]],
    depth: int,
    lists: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Say in a configuration, and in the parts of it, which layers the model has now.

    A number that is the depth and whose key speaks of layers is one; a list of as many values has
    one a layer; any other list of layers names some of them, or all, and so do the keys of an
    object where they are numbers. What lasts to the last layer lasts to the last of the stack.

    Args:
        config: of the first model.
        layers: of each layer the configuration of its model, and its index there.
        depth: layers that the first model has.
        lists: further keys of lists with a value for each layer.

    Raises:
        RecipeError: a model says nothing of a layer that it gives.
    """
    changed: dict[str, Any] = {}
    inside = _language_keys(config)
    for key, value in config.items():
        theirs = [(of.get(key, value), i) for of, i in layers]
        changed[key] = value
        if isinstance(value, dict) and "layer" in key and all(i.isdigit() for i in value):
            said = [of.get(str(i)) if isinstance(of, dict) else None for of, i in theirs]
            changed[key] = {str(at): own for at, own in enumerate(said) if own is not None}
        elif isinstance(value, dict):
            if key in inside:
                parts = [(of if isinstance(of, dict) else value, i) for of, i in theirs]
                changed[key] = of_layers(value, parts, depth, lists)
        elif "layer" not in key and key not in lists:
            continue
        elif isinstance(value, list) and len(value) == depth and value != list(range(depth)):
            changed[key] = [_value(of, i, key) for of, i in theirs]
        elif isinstance(value, list) and all(type(i) is int and 0 <= i < depth for i in value):
            changed[key] = [at for at, (of, i) in enumerate(theirs) if i in _list(of, key)]
        elif type(value) is int and value == depth and _counts(key):
            changed[key] = len(layers)
        elif type(value) is int and value == depth - 1 and _LAST in key:
            changed[key] = len(layers) - 1
    return changed


def check_said(config: Mapping[str, Any], lists: frozenset[str]) -> None:
    """Refuse a stack whose class makes other layers of it than are meant.

    Raises:
        RecipeError: naming a list that the class makes of other fields, whatever is said.
    """
    try:
        whole = configuration(config).to_dict()
    except InputError:
        return  # it is said where the model is made
    _check_same(config, whole, lists)


def _check_same(config: Mapping[str, Any], made: Mapping[str, Any], lists: frozenset[str]) -> None:
    inside = _language_keys(config)
    for key, value in config.items():
        theirs = made.get(key, value)
        if key in inside and isinstance(theirs, dict):
            _check_same(value, theirs, lists)
        elif isinstance(value, list) and ("layer" in key or key in lists) and theirs != value:
            raise RecipeError(
                f"a stack's config.json must say which layer is which, but of its {key} {value} "
                f"transformers makes {theirs}; merge whole models"
            )


def _with_lists(
    config: Mapping[str, Any], whole: Mapping[str, Any], depth: int, lists: frozenset[str]
) -> dict[str, Any]:
    """Take lists of layers from what the class makes of a configuration."""
    found, inside = dict(config), _language_keys(config)
    for key, value in whole.items():
        own = config.get(key)
        if isinstance(value, dict) and isinstance(own, dict) and key in inside:
            found[key] = _with_lists(own, value, depth, lists)
        elif isinstance(value, list) and ("layer" in key or key in lists):
            named = all(type(i) is int and 0 <= i < depth for i in value)
            if len(value) == depth or (named and own is None):
                found[key] = value
    return found


def _deeper(config: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Say one layer more in a configuration, and nothing of single layers."""
    changed, inside = dict[str, Any](), _language_keys(config)
    for key, value in config.items():
        if key in inside:
            changed[key] = _deeper(value, depth)
        elif key in DEPTH_KEYS and value == depth:
            changed[key] = depth + 1
        elif not (isinstance(value, list) and len(value) == depth):
            changed[key] = value
    return changed


def _language_keys(config: Mapping[str, Any]) -> set[str]:
    """List the parts whose layers are moved: beside towers the language model's."""
    parts = {key for key, value in config.items() if isinstance(value, dict)}
    return parts & set(LANGUAGE_KEYS) or parts


def _language_parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config
    for key in sorted(_language_keys(config)):
        yield from _language_parts(config[key])


def _counts(key: str) -> bool:
    return key.endswith(_COUNTS) and _PERIOD not in key


def _value(of: Any, i: int, key: str) -> Any:
    """Give a list's value for a layer.

    Raises:
        RecipeError: it has none.
    """
    if i < len(values := _list(of, key)):
        return values[i]
    raise RecipeError(
        f"{key} in config.json must have a value for each layer of a stack, got {values} for "
        f"layer {i}; save the model with transformers again"
    )


def _list(of: Any, key: str) -> list[Any]:
    if isinstance(of, list):
        return of
    raise RecipeError(
        f"{key} in config.json must be a list in all models of a stack, got {of!r}; save the "
        "models with transformers again"
    )
