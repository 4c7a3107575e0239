"""Tensors in another model's layout: experts in one, or in one each."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from mergesearch.parents.architecture import Destination, destinations, empty_model
from mergesearch.parents.checkpoint import Checkpoint, Remade
from mergesearch.parents.fused import Group, groups


def remade(first: Checkpoint, other: Checkpoint) -> dict[str, Remade]:
    """Find the tensors that a model stores otherwise than the first does.

    What the one stores as parameters of the class, the other may store as the tensors that rules of
    transformers make these parameters of. The rules lead from the one to the other, either way.

    Args:
        first: the model whose layout is taken.
        other: another one of its class; its tensors have the first's names where they are alike.

    Returns:
        By the first's names; none where transformers does not have the class.

    Raises:
        InputError: a rule does not fit the stored shapes.
    """
    models = [empty_model(of.config) for of in (first, other)]
    if any(model is None for model in models):
        return {}
    ours, theirs = (_Layout(model, of) for model, of in zip(models, (first, other), strict=True))
    found: dict[str, Remade] = {}
    for group in ours.groups:
        if all(theirs.has(name, shape) for name, shape in group.parameters.items()):
            sources = {name: theirs.plain[name] for name in group.parameters}
            for name in group.sources:
                make = partial(_taken_back, group, sources, name)
                found[name] = _remade(first, other, name, tuple(sources.values()), make)
    for group in theirs.groups:
        if all(ours.has(name, shape) for name, shape in group.parameters.items()):
            for parameter in group.parameters:
                name = ours.plain[parameter]
                make = partial(_loaded, group, parameter)
                found[name] = _remade(first, other, name, tuple(group.sources), make)
    return found


class _Layout:
    """The stored tensors of a model by what they become."""

    def __init__(self, model: object, checkpoint: Checkpoint) -> None:
        found: Mapping[str, Destination] = destinations(model, checkpoint.specs)
        self._shapes = {name: spec.shape for name, spec in checkpoint.specs.items()}
        #: Stored name by parameter, where the one is the other.
        self.plain = {to.parameter: name for name, to in found.items() if to.pattern is None}
        #: The tensors that are parameters together only.
        self.groups = tuple(groups(model, self._shapes, found))

    def has(self, parameter: str, shape: tuple[int, ...]) -> bool:
        """Tell if a parameter is stored as it is."""
        name = self.plain.get(parameter)
        return name is not None and self._shapes[name] == shape


def _remade(
    first: Checkpoint,
    other: Checkpoint,
    name: str,
    sources: tuple[str, ...],
    make: Callable[[Mapping[str, Tensor]], Tensor],
) -> Remade:
    """Describe a tensor that has the first model's shape, and the other's dtype."""
    source = other.specs[sources[0]]
    return Remade(first.specs[name].shape, source.dtype, source.file, sources, make)


def _taken_back(
    group: Group, stored: Mapping[str, str], name: str, tensors: Mapping[str, Tensor]
) -> Tensor:
    """Take a tensor out of parameters: of experts its own alone, where it is one's."""
    parameters = {parameter: tensors[at] for parameter, at in stored.items()}
    only = next(iter(parameters.values()))
    if len(parameters) == 1 and group.n_stacked_with(name) == len(only):
        i = group.place_of(name)
        return group.take_back_one(only[i : i + 1], name)
    return group.take_back(parameters)[name]


def _loaded(group: Group, parameter: str, tensors: Mapping[str, Tensor]) -> Tensor:
    return group.load({name: tensors[name] for name in group.sources})[parameter]
