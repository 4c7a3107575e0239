"""Merges compared with the classes that will load them."""

from mergesearch.errors import InputError
from mergesearch.merging.conversion import Conversion, loads, missing
from mergesearch.merging.layered import DEPTH_KEYS
from mergesearch.merging.plan import Plan
from mergesearch.parents import EMBEDDINGS, HEAD, Parents, empty_model, in_layer, layer_of

#: Parts of the names of what lies between the last layer and the head.
_NORMS = ("norm", "ln_f")
#: The experts of a mixture are of a number that is no layers'.
_COUNTED = "expert"


def check_loads(plan: Plan, parents: Parents) -> None:
    """Refuse a merge that transformers would load with parameters made at random.

    And a stack whose tensors are others than its configuration means. The class in transformers is
    made without memory, and compared by names, those of a stack by shapes as well. Code of a
    model's own, which is never run, says nothing. A causal model whose layers are all there and
    alike, between embeddings, norm and head, is taken to be whole.

    Raises:
        InputError: naming a tensor that would be missing, or of a stack unexpected, or of another
            shape.
    """
    if not plan.is_stack and _looks_whole(plan):
        return  # without the seconds that transformers takes to import
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
    if model is None or plan.config.get("auto_map"):
        return
    if lost := missing(model, plan.shapes):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise InputError(
            f"the models must have every parameter of {type(model).__name__}, the class that "
            f"config.json names, but none has {lost[0]}{more}, which would be random; download "
            "them again, or name the class that they are of under architectures"
        )


def _loads_itself(plan: Plan, parents: Parents) -> bool:
    """Tell if a class loads the first model of a stack by itself."""
    first = parents.checkpoint(parents.models[0])
    kinds = {in_layer(name, 0) for name in plan.shapes}
    stored = {n: spec.shape for n, spec in first.specs.items() if in_layer(n, 0) in kinds}
    model = empty_model(first.config)
    return model is not None and loads(model, stored)


def _looks_whole(plan: Plan) -> bool:
    """Tell a plain causal model of which no tensor can be seen to be missing."""
    config, names = plan.config, plan.shapes
    layers: dict[int, set[str]] = {}
    for name in names:
        if (layer := layer_of(name)) is not None:
            layers.setdefault(layer, set()).add(in_layer(name, 0))
    outside = [name for name in names if layer_of(name) is None]
    classes = config.get("architectures")
    return (
        isinstance(classes, list)
        and [str(name).endswith("ForCausalLM") for name in classes] == [True]
        and bool(layers)
        and layers.keys() == set(range(len(layers)))
        and len(layers) in [config.get(key) for key in DEPTH_KEYS]
        and all(kinds == layers[0] for kinds in layers.values())
        and not any(_COUNTED in name for name in layers[0])
        and any(name.endswith(EMBEDDINGS) for name in outside)
        and any(norm in name for name in outside for norm in _NORMS)
        and (HEAD in names or config.get("tie_word_embeddings") is True)
    )
