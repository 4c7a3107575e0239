"""The shape of a space's models, and the groups that its granularity may name."""

from collections.abc import Mapping
from functools import partial

from mergesearch.errors import InputError
from mergesearch.merging import n_layers, plan_merge, task_vector_norms
from mergesearch.parents import Parents, layer_of
from mergesearch.space import Granularity, SearchSpace, Shape, residual_filters

#: The group of what chooses a mixture's experts, whatever an architecture calls it.
ROUTER = "router"
#: Keys under which configurations count the experts of a layer.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def with_router(granularity: Granularity, parents: Parents) -> Granularity:
    """Say a group `router` by the part of the names that files have for it.

    A router has a row an expert, and is none of the experts.
    """
    first = parents.models[0]
    specs, config = parents.specs(first), parents.checkpoint(first).config
    parts = (config, config.get("text_config") or {})
    counts = {part[key] for part in parts for key in _EXPERTS if key in part}
    if ROUTER not in granularity.groups or any(ROUTER in name for name in specs):
        return granularity
    found = {
        ".".join(name.split(".")[-3:])
        for name, spec in specs.items()
        if layer_of(name) is not None
        and "expert" not in name
        and spec.shape[:1] in {(n,) for n in counts}
        and len(spec.shape) == 2
    }
    if len(found) != 1:
        return granularity  # whose check says what there is
    groups = tuple(next(iter(found)) if g == ROUTER else g for g in granularity.groups)
    return granularity.model_copy(update={"groups": groups})


def shape_of(space: SearchSpace, parents: Parents) -> Shape:
    """Describe the models to the space, whose granularity is checked against them."""
    depth, granularity = n_layers(parents, space.models[0]), space.granularity
    for key in ("blocks", "layers_per_block"):
        if (value := getattr(granularity, key)) is not None and value > depth:
            raise InputError(
                f"granularity.{key} must be at most the models' {depth} layers, got {value}"
            )
    if space.stacking is not None:
        space.stacking.check(depth)
    names = list(parents.specs(space.models[0]))
    outside = set()
    for group in granularity.groups:
        members = [name for name in names if group in name]
        if not members:
            parts = sorted({part for name in names for part in _parts(name)})
            raise InputError(
                f"granularity.groups: no tensor's name contains {group!r}; "
                f"parts of names are {', '.join(parts)}"
            )
        if all(layer_of(name) is None for name in members):
            outside.add(group)
    scaled = space.stacking is not None and space.stacking.scale is not None
    writers = residual_filters(names) if scaled else ()
    return Shape(depth, frozenset(outside), writers, partial(_norms, space, parents))


def _norms(space: SearchSpace, parents: Parents) -> Mapping[str, float]:
    """Measure every parent's task vector; the space must have a base."""
    plan = plan_merge(space.task_arithmetic(1.0), parents)
    return dict(zip(space.parents, task_vector_norms(plan, parents), strict=True))


def _parts(name: str) -> list[str]:
    """List what a group may be called after: a module in a layer, or beside them."""
    parts = name.split(".")
    return parts[3:4] if layer_of(name) is not None else parts[-2:-1]
