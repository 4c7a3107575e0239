"""From the tensors of a checkpoint to the parameters of its model.

Most are parameters, under another name at the most. Where a class fuses what files hold apart, as
the experts of a mixture, or holds apart what files fuse, transformers' own rules make the one of
the other; they move entries and change none, so that they are taken back for gradients.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mergesearch.errors import InputError, RecipeError
from mergesearch.merging.loading import Load
from mergesearch.parents import Group, destinations, groups, in_layer, passed_over


class Conversion:
    """The way from a checkpoint's tensors to the parameters of a model.

    Args:
        model: a transformers model, or a module whose parameters are named as the tensors.
        shapes: of the tensors, by name.

    Raises:
        RecipeError: a tensor is of another shape than the model's.
        InputError: a parameter is none of the tensors, or there are tensors of more layers than the
            model has, and its class does not say that they are left out.
    """

    def __init__(self, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._model = model
        found = destinations(model, shapes)
        #: Parameter by stored name, where the one is the other.
        self.plain = {n: to.parameter for n, to in found.items() if to.pattern is None}
        #: The tensors that are parameters together only.
        self.groups = tuple(groups(model, shapes, found))
        #: The tensors that transformers does not load: value heads, further tokens' layers.
        self.unused = tuple(name for name in shapes if name not in found)
        self._check(model, shapes)

    @property
    def is_plain(self) -> bool:
        """True where each tensor is a parameter."""
        return not (self.groups or self.unused)

    def n_bytes(self, dtype: torch.dtype) -> int:
        """Bound what the largest group takes while it is made: twice, and once stacked."""
        sizes = (math.prod(s) for group in self.groups for s in group.parameters.values())
        return 3 * max(sizes, default=0) * dtype.itemsize

    def tensor(self, name: str) -> Tensor:
        """Give the model's tensor that a plain one becomes."""
        return self.made(self.plain[name])

    def targets(self) -> dict[str, Tensor]:
        """Give the memory of each plain tensor."""
        return {name: self.tensor(name).data for name in self.plain}

    def loads(self) -> list[Load]:
        """List how the others get into the model, by groups; what is unused is let go of."""
        groups = [self._load(group) for group in self.groups]
        some = next(self._model.parameters())
        unused = [
            Load(frozenset((name,)), some.dtype, some.device, lambda _: None)
            for name in self.unused
        ]
        return [*groups, *unused]

    def _load(self, group: Group) -> Load:
        def into(tensors: Mapping[str, Tensor]) -> None:
            for name, made in group.load(tensors).items():
                self.made(name).data.copy_(made)

        first = self.made(next(iter(group.parameters)))
        return Load(frozenset(group.sources), first.dtype, first.device, into)

    def made(self, name: str) -> Tensor:
        """Give a tensor of the model, by its own name."""
        owner, _, leaf = name.rpartition(".")
        tensor: Tensor = getattr(self._model.get_submodule(owner), leaf)
        return tensor

    def _check(self, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        known = model.state_dict(keep_vars=True)
        made = {to: shapes[name] for name, to in self.plain.items()}
        for group in self.groups:
            made |= group.parameters
        if lost := _unwritten(model, made):
            raise _only("model", lost[0])
        kinds = {in_layer(name, 0) for name in known}
        alike = [name for name in self.unused if in_layer(name, 0) in kinds]
        # a value head is another kind of tensor; a further layer is not
        if alike and (odd := set(alike) - passed_over(model, alike)):
            raise _only("recipe", min(odd))
        check_shapes(model, made)


def made_of(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the parameters that tensors become, by the model's names.

    Args:
        model: a transformers model.
        shapes: of the tensors, by name.

    Raises:
        InputError: transformers' rules cannot make parameters of the tensors.
    """
    found = destinations(model, shapes)
    made = {to.parameter: shapes[n] for n, to in found.items() if to.pattern is None}
    for group in groups(model, shapes, found):
        made |= group.parameters
    return made


def missing(model: Any, made: Iterable[str]) -> tuple[str, ...]:
    """List the parameters that are not made, and transformers makes at random."""
    computed = model._keys_to_ignore_on_load_missing or ()
    lost = _unwritten(model, made)
    return tuple(n for n in lost if not any(re.search(pattern, n) for pattern in computed))


def check_shapes(model: Any, made: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse parameters of other shapes than the model's.

    Raises:
        RecipeError: naming the first.
    """
    known = model.state_dict(keep_vars=True)
    for name, shape in made.items():
        if name in known and tuple(known[name].shape) != shape:
            raise RecipeError(
                f"every tensor must have the shape that the first model's config.json means, "
                f"{list(known[name].shape)} for {name}, got {list(shape)}; correct that file"
            )


def loads(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell if tensors of these shapes, by name, give a model all its parameters."""
    try:
        Conversion(model, shapes)
    except InputError:
        return False
    return True


def _only(owner: str, name: str) -> InputError:
    return InputError(
        "the model must have the parameters that the recipe writes, but only the "
        f"{owner} has {name}"
    )


def _unwritten(model: Any, names: Iterable[str]) -> list[str]:
    """List a model's parameters that are none of some tensors, tied ones as one."""
    known = model.state_dict(keep_vars=True)
    written = {id(known[name]) for name in names if name in known}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in written]
