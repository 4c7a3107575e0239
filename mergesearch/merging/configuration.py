"""The configuration of a merged model, from its parents' and its layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from mergesearch.errors import RecipeError
from mergesearch.parents import LANGUAGE_KEYS, Parents
from mergesearch.recipe import ModelRef, Recipe

#: The keys under which a configuration says how many layers a model has.
_DEPTH_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "decoder_layers",
    "num_decoder_layers",
)
#: Endings of keys that count layers.
_COUNTS = ("layers", "n_layer")


def has_towers(config: Mapping[str, Any]) -> bool:
    """Tell a configuration of a language model with others beside it."""
    return any(isinstance(config.get(key), dict) for key in LANGUAGE_KEYS)


def n_layers(parents: Parents, model: ModelRef) -> int:
    """Count the layers of a parent, by its configuration.

    Raises:
        RecipeError: the configuration does not say.
    """
    config = parents.checkpoint(model).config
    for part in (config, *(config.get(key) for key in LANGUAGE_KEYS)):
        for key in _DEPTH_KEYS:
            if isinstance(part, dict) and isinstance(part.get(key), int):
                return int(part[key])
    raise RecipeError(f"{model}: config.json has none of {', '.join(_DEPTH_KEYS)}")


def merged_config(
    recipe: Recipe, layers: Sequence[tuple[ModelRef, int]], parents: Parents
) -> dict[str, Any]:
    """Change the first model's configuration to other layers, vocabulary or dtype.

    Args:
        recipe: what is merged.
        layers: of each layer of the output the model, and its layer there, that it follows.
        parents: the recipe's models.
    """
    first = recipe.models[0]
    config = parents.alignment.config(parents.checkpoint(first).config)
    theirs = [(parents.checkpoint(model).config, layer) for model, layer in layers]
    config = _of_layers(config, theirs, n_layers(parents, first))
    config.pop("quantization_config", None)  # of weights that are quantized no more
    if dtype := recipe.out_dtype or recipe.dtype:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    return config


def _of_layers(
    config: Mapping[str, Any], layers: Sequence[tuple[Mapping[str, Any], int]], depth: int
) -> dict[str, Any]:
    """Say in a configuration, and in the parts of it, which layers the model has now.

    A number that is the depth and whose key speaks of layers is one; a list of as many values has
    one a layer; any other list of layers names some of them, or all.

    Args:
        config: of the first model.
        layers: of each layer the configuration of its model, and its index there.
        depth: layers that the first model has.
    """
    changed: dict[str, Any] = {}
    # of a model with towers, whose layers stay
    language = {key for key in LANGUAGE_KEYS if isinstance(config.get(key), dict)}
    for key, value in config.items():
        theirs = [(of.get(key, value), i) for of, i in layers]
        changed[key] = value
        if isinstance(value, dict):
            if language and key not in language:
                continue
            parts = [(of if isinstance(of, dict) else value, i) for of, i in theirs]
            changed[key] = _of_layers(value, parts, depth)
        elif "layer" not in key:
            continue
        elif isinstance(value, list) and len(value) == depth and value != list(range(depth)):
            changed[key] = [of[i] for of, i in theirs]
        elif isinstance(value, list) and all(type(i) is int and 0 <= i < depth for i in value):
            changed[key] = [at for at, (of, i) in enumerate(theirs) if i in of]
        elif type(value) is int and value == depth and key.endswith(_COUNTS):
            changed[key] = len(layers)
    return changed
