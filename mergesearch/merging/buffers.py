"""Copies of masks and positions, which are stored and no parameters."""

from collections.abc import Iterator, Sequence

import torch

from mergesearch.errors import RecipeError
from mergesearch.merging.plan import Buffer, Input
from mergesearch.parents import Parents, in_layer, layer_of
from mergesearch.recipe import ModelRef

#: Ends of names of counts, which a model that is no longer trained does not look at.
_COUNTS = ("num_batches_tracked",)


def plan_buffers(
    models: Sequence[ModelRef],
    parents: Parents,
    layers: Sequence[tuple[ModelRef, int]] | None,
) -> Iterator[Buffer]:
    """Plan the copies of the first model's masks and positions.

    Args:
        models: of the recipe.
        parents: has them.
        layers: of a stack: for each of its layers the model, and the layer there.

    Raises:
        RecipeError: another model stores another.
    """
    first, *others = models
    for at, (model, layer) in enumerate(layers or ()):
        for name, spec in parents.checkpoint(model).buffers.items():
            if layer_of(name) == layer:
                yield Buffer(in_layer(name, at), Input(model, name), spec.shape, spec.dtype)
    for name, spec in parents.checkpoint(first).buffers.items():
        if layers is not None and layer_of(name) is not None:
            continue
        for other in others if not name.endswith(_COUNTS) else ():
            if name in parents.checkpoint(other).buffers and not _same(name, first, other, parents):
                raise RecipeError(
                    f"masks and positions are copied, so {name} must be the same in all "
                    f"models, but {first} and {other} differ; remove it from one of them"
                )
        yield Buffer(name, Input(first, name), spec.shape, spec.dtype)


def _same(name: str, first: ModelRef, other: ModelRef, parents: Parents) -> bool:
    """Compare two models' masks or positions, once for all candidates."""
    one, two = (parents.checkpoint(model) for model in (first, other))
    return parents.memo.recall(
        ("same buffer", first, other, name), lambda: torch.equal(one.read(name), two.read(name))
    )
