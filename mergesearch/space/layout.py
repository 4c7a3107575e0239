"""From settings for each part of the depth to the slices of a recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mergesearch.recipe import Conditional, ModelRef, Setting, Slice, Source
from mergesearch.space.settings import Granularity

Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Shape:
    """The shape of a space's models: what it must know of them."""

    n_layers: int
    #: The groups of a space's granularity that have no tensor in any layer.
    outside: frozenset[str] = frozenset()
    #: Parts of the names of what writes to the residual stream; none where no scale is searched.
    writers: tuple[str, ...] = ()
    #: Measures the norm of each parent's task vector, by its name, where a start asks for them.
    norms: Callable[[], Mapping[str, float]] = dict

    def n_blocks(self, granularity: Granularity) -> int:
        """Into how many blocks the layers go."""
        if granularity.layers_per_block is None:
            return granularity.blocks
        return -(-self.n_layers // granularity.layers_per_block)


@dataclass(frozen=True)
class Block:
    """The settings of one part of the depth."""

    #: For all models.
    common: Settings
    #: For each model, by its name.
    own: Mapping[str, Settings]


def boundaries(n_layers: int, granularity: Granularity) -> list[tuple[int, int]]:
    """Return the layer ranges [first, end) of the blocks.

    They are as equal as whole layers allow; where their length is given, the last may be shorter.
    """
    if (length := granularity.layers_per_block) is not None:
        return [(i, min(i + length, n_layers)) for i in range(0, n_layers, length)]
    n_blocks = granularity.blocks
    edges = [round(i * n_layers / n_blocks) for i in range(n_blocks + 1)]
    return list(pairwise(edges))


def in_gradients(
    blocks: Sequence[Block], models: Mapping[str, ModelRef]
) -> tuple[Settings, tuple[Slice, ...]]:
    """Whole models, their settings interpolated between the blocks.

    Returns:
        The recipe's own settings, and its one slice.
    """
    common = _over_depth([block.common for block in blocks])
    own = {name: _over_depth([block.own[name] for block in blocks]) for name in models}
    sources = tuple(Source(model=ref, parameters=own[name]) for name, ref in models.items())
    return common, (Slice(sources=sources),)


def in_steps(
    blocks: Sequence[Block],
    models: Mapping[str, ModelRef],
    base: ModelRef | None,
    ranges: Sequence[tuple[int, int]],
) -> tuple[Slice, ...]:
    """One slice for each block, so that settings change at its edge."""
    slices = []
    for block, layers in zip(blocks, ranges, strict=True):
        sources = tuple(
            Source(model=ref, layer_range=layers, parameters=block.own[name])
            for name, ref in models.items()
        )
        if base is not None:  # mergekit takes the base of a slice from its sources
            sources = (Source(model=base, layer_range=layers), *sources)
        slices.append(Slice(sources=sources, parameters=block.common))
    return tuple(slices)


def _over_depth(blocks: Sequence[Settings]) -> dict[str, Setting]:
    """Join the settings of consecutive blocks to gradients."""
    if len(blocks) == 1:
        return dict(blocks[0])
    return {name: _gradient([block[name] for block in blocks]) for name in blocks[0]}


def _gradient(settings: Sequence[Any]) -> Setting:
    """Make one value a block, or one a filter and block; one where all are equal."""
    if isinstance(settings[0], tuple):
        cases = zip(*settings, strict=True)
        return tuple(
            Conditional(filter=case[0].filter, value=_values([c.value for c in case]))
            for case in cases
        )
    return _values(settings)


def _values(values: Sequence[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else tuple(values)
