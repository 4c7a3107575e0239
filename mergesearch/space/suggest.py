"""From an Optuna trial to a candidate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mergesearch.methods import METHODS, Parameter, Scalar
from mergesearch.recipe import Conditional, ModelRef, Recipe, Setting, Slice, Source
from mergesearch.space.schema import GREEDY_SOUP, Choice, Domain, Fixed, Range, SearchSpace

if TYPE_CHECKING:
    import optuna

#: The group of the tensors that are in none of the groups a space names.
REST = "rest"
#: Digits kept of a suggested number: finer steps change no score, and recipes stay readable.
_DECIMALS = 4


@dataclass(frozen=True)
class SoupOrder:
    """A candidate that is a greedy soup, made by trying the parents in this order."""

    names: tuple[str, ...]


def suggest(
    space: SearchSpace, trial: "optuna.trial.BaseTrial", n_layers: int
) -> Recipe | SoupOrder:
    """The candidate that a trial proposes.

    Parameters that mean the same in several methods (weights) have one name in the study, so that
    every trial teaches the sampler; the others are named after their method.

    Args:
        space: what may be proposed.
        trial: an Optuna trial; its `suggest_*` functions are called.
        n_layers: the depth of the models.
    """
    name = _choose(trial, "method", tuple(space.methods))
    if name == GREEDY_SOUP:
        keys = {parent: trial.suggest_float(f"order.{parent}", 0, 1) for parent in space.parents}
        return SoupOrder(tuple(sorted(keys, key=lambda parent: (keys[parent], parent))))
    method = METHODS[name]

    def value(parameter: Parameter, key: str) -> Scalar:
        """One value; `key` says of which parent, block and group."""
        domain = space.methods[name][parameter.name]
        if not parameter.by_block:
            return _draw(trial, f"{name}.{parameter.name}", domain, domain)
        return _draw(trial, f"{parameter.name}{key}", domain, _shared_range(space, parameter.name))

    base, models = _inputs(space, name, trial)
    searched = [p for p in method.parameters if p.name in space.methods[name]]
    shared = {p.name: value(p, "") for p in searched if not p.by_block}
    blocks = [
        (
            {
                p.name: _by_group(space, value, p, f".{i}")
                for p in searched
                if p.by_block and not p.per_model
            },
            {
                parent: {
                    p.name: _by_group(space, value, p, f".{parent}.{i}")
                    for p in searched
                    if p.by_block and p.per_model
                }
                for parent in models
            },
        )
        for i in range(space.granularity.blocks)
    ]
    return Recipe(
        merge_method=name,
        base_model=base,
        parameters=shared,
        slices=_slices(space, base, models, blocks, n_layers),
        seed=space.search.seed,
    )


def boundaries(n_layers: int, n_blocks: int) -> list[tuple[int, int]]:
    """The layer ranges [first, end) of blocks as equal as whole layers allow."""
    edges = [round(i * n_layers / n_blocks) for i in range(n_blocks + 1)]
    return list(pairwise(edges))


def domains(space: SearchSpace) -> dict[str, Range]:
    """The range in the study of each parameter that methods share."""
    names = {
        p.name for m in space.methods if m in METHODS for p in METHODS[m].parameters if p.by_block
    }
    return {name: shared for name in sorted(names) if (shared := _shared_range(space, name))}


Block = tuple[dict[str, Setting], dict[str, dict[str, Setting]]]


def _slices(
    space: SearchSpace,
    base: ModelRef | None,
    models: dict[str, ModelRef],
    blocks: list[Block],
    n_layers: int,
) -> tuple[Slice, ...]:
    """One slice of all layers, or one for each block where weights change in steps."""
    if len(blocks) == 1 or space.granularity.smooth:
        common = _over_depth([shared for shared, _ in blocks])
        own = {parent: _over_depth([per[parent] for _, per in blocks]) for parent in models}
        sources = tuple(Source(model=ref, parameters=own[p]) for p, ref in models.items())
        return (Slice(sources=sources, parameters=common),)
    parts = []
    for (shared, own), layers in zip(blocks, boundaries(n_layers, len(blocks)), strict=True):
        sources = tuple(
            Source(model=ref, layer_range=layers, parameters=own[p]) for p, ref in models.items()
        )
        if base is not None:  # mergekit takes the base of a slice from its sources
            sources = (Source(model=base, layer_range=layers), *sources)
        parts.append(Slice(sources=sources, parameters=shared))
    return tuple(parts)


def _over_depth(blocks: list[dict[str, Setting]]) -> dict[str, Setting]:
    """Settings of consecutive blocks as gradients, group by group."""
    if len(blocks) == 1:
        return blocks[0]
    return {name: _gradient([block[name] for block in blocks]) for name in blocks[0]}


def _gradient(settings: list[Any]) -> Setting:
    if isinstance(settings[0], tuple):
        cases = zip(*settings, strict=True)
        return tuple(
            Conditional(filter=case[0].filter, value=tuple(c.value for c in case)) for case in cases
        )
    return tuple(settings)


def _by_group(
    space: SearchSpace, value: Callable[[Parameter, str], Scalar], parameter: Parameter, key: str
) -> Setting:
    """One value, or one for each group of tensors and one for the rest."""
    key = key if space.granularity.blocks > 1 else key.rpartition(".")[0]
    if not space.granularity.groups:
        return value(parameter, key)
    cases = [
        Conditional(filter=group, value=value(parameter, f"{key}.{group}"))
        for group in space.granularity.groups
    ]
    return (*cases, Conditional(value=value(parameter, f"{key}.{REST}")))


def _inputs(
    space: SearchSpace, name: str, trial: "optuna.trial.BaseTrial"
) -> tuple[ModelRef | None, dict[str, ModelRef]]:
    """The base and the models of a candidate; slerp chooses its two among the parents."""
    if name == "slerp":
        pairs = tuple(f"{a}|{b}" for a, b in _pairs(tuple(space.parents)))
        first, second = str(_choose(trial, "slerp.pair", pairs)).split("|")
        return space.parents[first], {second: space.parents[second]}
    base = space.base if METHODS[name].base == "required" else None
    return base, dict(space.parents)


def _pairs(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            yield first, second


def _shared_range(space: SearchSpace, parameter: str) -> Range | None:
    """The smallest range that holds every method's own."""
    ranges = [
        domain
        for domains in space.methods.values()
        if isinstance(domain := domains.get(parameter), Range)
    ]
    if not ranges:
        return None
    return Range(min(r.low for r in ranges), max(r.high for r in ranges))


def _draw(
    trial: "optuna.trial.BaseTrial", name: str, domain: Domain, study_domain: Domain | None
) -> Scalar:
    """A value of `domain`, suggested over `study_domain` and clipped to the method's own range."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return _choose(trial, name, domain.values)
    assert isinstance(study_domain, Range)
    drawn = trial.suggest_float(name, study_domain.low, study_domain.high)
    return min(max(round(drawn, _DECIMALS), domain.low), domain.high)


def _choose(trial: "optuna.trial.BaseTrial", name: str, values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, values)
