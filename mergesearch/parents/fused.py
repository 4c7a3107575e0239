"""Parameters that are several stored tensors, or of which several are one."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mergesearch.errors import InputError
from mergesearch.parents.architecture import Destination, conversion_rules, destinations
from mergesearch.parents.checkpoint import Checkpoint


@dataclass(frozen=True)
class Group:
    """Stored tensors that a rule of transformers makes parameters of, together."""

    #: Stored names, and for each the name by which the rule knows it, and the pattern of that.
    sources: Mapping[str, tuple[str, str]]
    #: What it makes: shapes by name.
    parameters: Mapping[str, tuple[int, ...]]
    _rule: Any = field(repr=False)
    _model: Any = field(repr=False)

    def load(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make the parameters of stored tensors."""
        first = next(iter(self.parameters))
        return _made(self._rule, first, self.sources, tensors, self._model)

    def take_back(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make the stored tensors of parameters, or of their gradients."""
        made = self._taken_back(parameters)
        return {name: made[known] for name, (known, _) in self.sources.items()}

    def place_of(self, name: str) -> int:
        """Find the place of a stored tensor among those that are stacked with it."""
        return self._stacked_with(name).index(name)

    def n_stacked_with(self, name: str) -> int:
        """Count the stored tensors that are stacked with one, itself among them."""
        return len(self._stacked_with(name))

    def take_back_one(self, parameter: Tensor, name: str) -> Tensor:
        """Make a stored tensor of the one expert that it belongs to.

        Args:
            parameter: what the expert has in the group's only parameter, (1, ...).
            name: the stored name.
        """
        only = next(iter(self.parameters))
        first = self._stacked_with(name)[0]
        return self._taken_back({only: parameter})[self.sources[first][0]]

    def _stacked_with(self, name: str) -> list[str]:
        pattern = self.sources[name][1]
        return [other for other, (_, p) in self.sources.items() if p == pattern]

    def _taken_back(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rule = self._rule.reverse_transform()
        renamed = {name: rule.rename_source_key(name) for name in self.parameters}
        first = next(iter(renamed.values()))[0]
        return _made(rule, first, renamed, parameters, self._model)


def groups(
    model: Any, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Destination]
) -> Iterator[Group]:
    """Put the tensors together that become parameters together.

    Args:
        model: a transformers model.
        shapes: of stored tensors, by name.
        found: where they go; see `destinations`.

    Raises:
        InputError: transformers' rule does not fit their shapes.
    """
    from transformers.core_model_loading import WeightConverter

    sources: dict[str, dict[str, tuple[str, str]]] = {}
    for name, to in found.items():
        if to.pattern is not None:
            sources.setdefault(to.parameter, {})[name] = (to.canonical, to.pattern)
    rules = {
        pattern: rule
        for rule in (conversion_rules(model) if sources else ())
        if isinstance(rule, WeightConverter)
        for pattern in rule.source_patterns
    }
    for first, members in sources.items():
        rule = rules[next(iter(members.values()))[1]]
        empty = {name: torch.empty(shapes[name], device="meta") for name in members}
        try:
            made = _made(rule, first, members, empty, model)
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"transformers cannot make {first} of its tensors: {reason}") from None
        yield Group(members, {name: tuple(t.shape) for name, t in made.items()}, rule, model)


def _made(
    rule: Any,
    first: str,
    sources: Mapping[str, tuple[str, str]],
    tensors: Mapping[str, Tensor],
    model: Any,
) -> dict[str, Tensor]:
    """Let a rule of transformers make tensors of others.

    Args:
        rule: a `WeightConverter`.
        first: the name of the first that it makes.
        sources: of each tensor that it takes the name that it knows, and the pattern of that.
        tensors: by the keys of `sources`.
        model: whose configuration some rules ask.
    """
    rule = deepcopy(rule)
    for key, (name, pattern) in sources.items():
        rule.add_tensor(first, name, pattern, tensors[key])
    made = rule.convert(first, model=model, config=model.config)
    return {name: of[0] if isinstance(of, list) else of for name, of in made.items()}


def stored_as(model: Any, base: Checkpoint) -> tuple[dict[str, str], dict[str, Group]]:
    """Find what a checkpoint stores each parameter of its model as.

    Returns:
        The names of tensors that are one, and the groups of those of which others are made.
    """
    found = destinations(model, base.specs)
    files = {to.parameter: name for name, to in found.items() if to.pattern is None}
    if all(to.pattern is None for to in found.values()):
        return files, {}
    shapes = {name: base.specs[name].shape for name in found}
    made = groups(deepcopy(model), shapes, found)  # peft changes the other
    return files, {name: group for group in made for name in group.parameters}
