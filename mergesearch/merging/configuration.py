"""The configuration of a merged model, from its parents' and its layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from mergesearch.errors import InputError, RecipeError
from mergesearch.merging.layered import DEPTH_KEYS, check_said, of_layers, per_layer, spelled_out
from mergesearch.merging.plan import Plan
from mergesearch.parents import LANGUAGE_KEYS, Parents, configuration, tower_depths
from mergesearch.recipe import ModelRef, Recipe

#: What is said of weights that are quantized or compressed, and of the merged ones no more.
_STALE = ("quantization_config", "compression_config")
_DTYPES = ("dtype", "torch_dtype")


def has_towers(config: Mapping[str, Any]) -> bool:
    """Tell a configuration of a language model with others beside it."""
    return any(isinstance(config.get(key), dict) for key in LANGUAGE_KEYS)


def n_layers(parents: Parents, model: ModelRef, *, whole: bool = False) -> int:
    """Count the layers of a parent, by its configuration or by the class of that.

    Args:
        parents: has the model.
        model: one of the parents.
        whole: its layers are not told apart; then its tensors may say, as of a model of stages.

    Raises:
        RecipeError: nothing says.
    """
    config = parents.checkpoint(model).config
    if (said := _depth_said(config)) is not None:
        return said
    n = parents.memo.recall(("depth", model), lambda: _depth_of_class(config))
    if n is None and whole:
        return max(tower_depths(parents.checkpoint(model).specs).values(), default=0)
    if n is None:
        raise RecipeError(
            f"{model}: config.json has none of {', '.join(DEPTH_KEYS)}; merge it whole, without "
            "layer_range"
        )
    return n


def language_depth(plan: Plan) -> int:
    """Count the layers of a merged language model, as its tensors' names have them.

    Beside it there may be towers of other depths, and it may have layers that its configuration
    does not count. 0 where no name says a layer.
    """
    depths = tower_depths(job.name for job in plan.jobs).values()
    said = _depth_said(plan.config)
    if said is None:
        return max(depths, default=0)
    return min(depths, key=lambda depth: abs(depth - said), default=0)


def _depth_said(config: Mapping[str, Any]) -> int | None:
    """Look for the depth of the language model in a configuration."""
    for part in (config, *(config.get(key) for key in LANGUAGE_KEYS)):
        for key in DEPTH_KEYS:
            if isinstance(part, dict) and isinstance(part.get(key), int):
                return int(part[key])
    return None


def _depth_of_class(config: Mapping[str, Any]) -> int | None:
    """Ask a class how deep its language model is, under whatever name."""
    try:
        of = configuration(config).get_text_config()
    except (InputError, ValueError):  # of several language models there is no one
        return None
    n = getattr(of, "num_hidden_layers", None)
    return n if type(n) is int else None


def merged_config(
    recipe: Recipe, layers: Sequence[tuple[ModelRef, int]], parents: Parents, depth: int
) -> dict[str, Any]:
    """Change the first model's configuration to other layers, vocabulary or dtype.

    Args:
        recipe: what is merged.
        layers: of each layer of the output the model, and its layer there, that it follows.
        parents: the recipe's models.
        depth: layers that the first model has.

    Raises:
        RecipeError: the configuration cannot say which layers there are.
    """
    first = recipe.models[0]
    config: Mapping[str, Any] = parents.checkpoint(first).config
    stay = [layer for _, layer in layers] == list(range(depth))
    if not stay or len({model for model, _ in layers}) > 1:
        config = _stacked(first, layers, parents, depth)
    config = _settled(parents.alignment.config(config), recipe.out_dtype or recipe.dtype)
    if dtype := recipe.out_dtype or recipe.dtype:
        config = {key: value for key, value in config.items() if key not in _DTYPES}
        config["dtype"] = dtype
    return config


def _stacked(
    first: ModelRef, layers: Sequence[tuple[ModelRef, int]], parents: Parents, depth: int
) -> dict[str, Any]:
    """Say in the first model's configuration which layers of which models there are."""

    def whole(model: ModelRef) -> dict[str, Any]:
        config = parents.checkpoint(model).config
        n = n_layers(parents, model)
        return parents.memo.recall(("spelled out", model), lambda: spelled_out(config, n))

    config = whole(first)
    lists = parents.memo.recall(("per layer", first), lambda: per_layer(config, depth))
    theirs = [(whole(model), layer) for model, layer in layers]
    stacked = of_layers(config, theirs, depth, lists)
    check_said(stacked, lists)
    return stacked


def _settled(config: Mapping[str, Any], dtype: str | None) -> dict[str, Any]:
    """Say in all parts of a configuration that weights are plain, and of one dtype."""
    settled: dict[str, Any] = {}
    for key, value in config.items():
        if key in _STALE:
            continue
        settled[key] = value
        if isinstance(value, dict):
            settled[key] = _settled(value, dtype)
        elif dtype and key in _DTYPES and value is not None:
            settled[key] = dtype
    return settled
