"""Merges compared with the classes that will load them."""

from collections.abc import Iterable, Mapping
from typing import Any

from mergesearch.errors import InputError
from mergesearch.merging.conversion import Conversion, check_shapes, loads, made_of, missing
from mergesearch.merging.plan import Plan
from mergesearch.parents import HEAD, Parents, empty_model, in_layer, layer_of
from mergesearch.recipe import ModelRef

_PLAIN = frozenset(
    f"{name}.weight"
    for name in (
        *("input_layernorm", "post_attention_layernorm"),
        *(f"self_attn.{x}_proj" for x in "qkvo"),
        *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
    )
)
#: The tensors of a layer, by kinds of models that are common: of these nothing more is asked,
#: without the seconds that transformers takes to import.
_LAYERS: Mapping[str, frozenset[str]] = {
    "llama": _PLAIN,
    "mistral": _PLAIN,
    "qwen2": _PLAIN | {f"self_attn.{x}_proj.bias" for x in "qkv"},
    "qwen3": _PLAIN | {f"self_attn.{x}_norm.weight" for x in "qk"},
}
_EMBEDDINGS = "model.embed_tokens.weight"
#: The keys of `config.json` that say the shapes of such a model's tensors, in layers as of the
#: first.
_SAID: Mapping[str, tuple[str, ...]] = {
    _EMBEDDINGS: ("vocab_size", "hidden_size"),
    HEAD: ("vocab_size", "hidden_size"),
    "model.layers.0.mlp.down_proj.weight": ("hidden_size", "intermediate_size"),
}
#: Keys by which such a layer has more of them.
_MORE = ("attention_bias", "mlp_bias")


def check_loads(plan: Plan, parents: Parents) -> None:
    """Refuse a merge that would not load, or with parameters made at random.

    And a stack whose tensors are others than its configuration means. The class in transformers is
    made without memory, and compared by names and shapes. Code of a model's own, which is never
    run, says nothing.

    Raises:
        InputError: naming a tensor of another shape, one that would be missing, or of a stack one
            that is unexpected.
    """
    _check_common(plan)
    if not plan.is_stack and _looks_whole(plan):
        return
    model = empty_model(plan.config)
    if plan.is_stack and _loads_itself(plan, parents):
        if model is None:
            raise InputError(
                "transformers cannot build the stack's configuration; merge whole models"
            )
        try:
            Conversion(model, plan.shapes)
        except InputError as error:
            raise InputError(
                "a stack must have the tensors that its config.json means: "
                f"{error}; merge whole models"
            ) from None
        check_shared(model, plan)
    if model is None or plan.config.get("auto_map"):
        return
    made = made_of(model, plan.shapes)
    check_shapes(model, made)
    if lost := missing(model, made):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise InputError(
            f"the models must have every parameter of {type(model).__name__}, the class that "
            f"config.json names, but none has {lost[0]}{more}, which would be random; download "
            "them again, or name the class that they are of under architectures"
        )


def _check_common(plan: Plan) -> None:
    """Refuse tensors of a common kind in other shapes than its configuration says.

    Raises:
        InputError: naming one, with both shapes.
    """
    config = plan.config
    if config.get("model_type") not in _LAYERS:
        return
    for name, shape in plan.shapes.items():
        if keys := _SAID.get(in_layer(name, 0)):
            said = tuple(config.get(key) for key in keys)
            if all(isinstance(n, int) for n in said) and said != shape:
                raise InputError(
                    f"{name} must be of the shape that config.json says, or nothing loads it, but "
                    f"it is of {_by(shape)} and {' and '.join(keys)} are {_by(said)}; correct the "
                    "first model's config.json"
                )


def _by(shape: Iterable[object]) -> str:
    return " x ".join(map(str, shape))


def check_shared(model: Any, plan: Plan) -> None:
    """Refuse a stack in which layers of several models are to share their tensors.

    As of Zamba, whose attention blocks are one: only the first is in a file, and the model that
    stands behind it would lose its own.

    Raises:
        InputError: naming a tensor and its layers.
    """
    owners: dict[int, set[ModelRef]] = {}
    for job in plan.jobs:
        if (layer := layer_of(job.name)) is not None:
            owners.setdefault(layer, set()).update(source.model for source in job.inputs)
    shared: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if layer_of(name) in owners:
            shared.setdefault(id(parameter), []).append(name)
    for first, *others in shared.values():
        ours = owners[layer_of(first) or 0]
        for other in others:
            if (theirs := owners[layer_of(other) or 0]) != ours:
                raise InputError(
                    f"layers that share their tensors must be of one model in a stack, but in "
                    f"{type(model).__name__} {first} is {other} as well, and they are of "
                    f"{_names(ours)} and {_names(theirs)}; take both from one, or merge whole "
                    "models"
                )


def _names(models: Iterable[ModelRef]) -> str:
    return " with ".join(sorted(map(str, models)))


def _loads_itself(plan: Plan, parents: Parents) -> bool:
    """Tell if a class loads the first model of a stack by itself."""
    first = parents.checkpoint(parents.models[0])
    kinds = {in_layer(name, 0) for name in plan.shapes}
    stored = {n: spec.shape for n, spec in first.specs.items() if in_layer(n, 0) in kinds}
    model = empty_model(first.config)
    return model is not None and loads(model, stored)


def _looks_whole(plan: Plan) -> bool:
    """Tell a causal model of a known kind that has every tensor of it."""
    config, classes = plan.config, plan.config.get("architectures")
    of_layer, depth = _LAYERS.get(str(config.get("model_type"))), config.get("num_hidden_layers")
    if not isinstance(classes, list) or of_layer is None or type(depth) is not int:
        return False
    if [str(name).endswith("ForCausalLM") for name in classes] != [True]:
        return False
    if any(config.get(key) for key in _MORE):
        return False
    ends = {_EMBEDDINGS, "model.norm.weight"}
    if config.get("tie_word_embeddings") is not True:
        ends.add(HEAD)
    layers = {f"model.layers.{i}.{name}" for i in range(depth) for name in of_layer}
    return layers | ends <= plan.shapes.keys()
