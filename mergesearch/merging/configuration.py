"""The configuration of a merged model, from its parents' and its layers."""

from collections.abc import Sequence
from typing import Any

from mergesearch.errors import RecipeError
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe

#: The keys under which a configuration says how many layers a model has.
_DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers")


def n_layers(parents: Parents, model: ModelRef) -> int:
    """Count the layers of a parent, by its configuration.

    Raises:
        RecipeError: the configuration does not say.
    """
    config = parents.checkpoint(model).config
    for key in _DEPTH_KEYS:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise RecipeError(f"{model}: config.json has none of {', '.join(_DEPTH_KEYS)}")


def merged_config(
    recipe: Recipe, layers: Sequence[tuple[ModelRef, int]], parents: Parents
) -> dict[str, Any]:
    """Change the first model's configuration to another depth, vocabulary or dtype.

    Args:
        recipe: what is merged.
        layers: of each layer of the output the model, and its layer there, that it follows.
        parents: the recipe's models.
    """
    first = recipe.models[0]
    config = parents.alignment.config(parents.checkpoint(first).config)
    depth = n_layers(parents, first)
    for key, value in config.items():
        if key in _DEPTH_KEYS:
            config[key] = len(layers)
        elif isinstance(value, list) and len(value) == depth and key.startswith("layer"):
            config[key] = [parents.checkpoint(m).config.get(key, value)[i] for m, i in layers]
    config.pop("quantization_config", None)  # of weights that are quantized no more
    if dtype := recipe.out_dtype or recipe.dtype:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    return config
