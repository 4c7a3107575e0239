"""From settings for each part of the depth to the slices of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mergesearch.recipe import Conditional, ModelRef, Setting, Slice, Source

Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Block:
    """What holds in one part of the depth."""

    #: For all models.
    common: Settings
    #: For each model, by its name.
    own: Mapping[str, Settings]


def boundaries(n_layers: int, n_blocks: int) -> list[tuple[int, int]]:
    """The layer ranges [first, end) of blocks as equal as whole layers allow."""
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
    blocks: Sequence[Block], models: Mapping[str, ModelRef], base: ModelRef | None, n_layers: int
) -> tuple[Slice, ...]:
    """One slice for each block, so that settings change at its edge."""
    slices = []
    for block, layers in zip(blocks, boundaries(n_layers, len(blocks)), strict=True):
        sources = tuple(
            Source(model=ref, layer_range=layers, parameters=block.own[name])
            for name, ref in models.items()
        )
        if base is not None:  # mergekit takes the base of a slice from its sources
            sources = (Source(model=base, layer_range=layers), *sources)
        slices.append(Slice(sources=sources, parameters=block.common))
    return tuple(slices)


def _over_depth(blocks: Sequence[Settings]) -> dict[str, Setting]:
    """Settings of consecutive blocks as gradients."""
    if len(blocks) == 1:
        return dict(blocks[0])
    return {name: _gradient([block[name] for block in blocks]) for name in blocks[0]}


def _gradient(settings: Sequence[Any]) -> Setting:
    """One value a block, or for each filter one value a block."""
    if isinstance(settings[0], tuple):
        cases = zip(*settings, strict=True)
        return tuple(
            Conditional(filter=case[0].filter, value=tuple(c.value for c in case)) for case in cases
        )
    return tuple(settings)
