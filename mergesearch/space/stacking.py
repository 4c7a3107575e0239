"""The data-flow space: which parent's layers follow which, and how much each adds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, field_validator

from mergesearch.config import Config
from mergesearch.errors import InputError
from mergesearch.recipe import Conditional, ModelRef, Recipe, Slice, Source

if TYPE_CHECKING:
    import optuna

#: Digits kept of a scale: finer steps change no score, and recipes stay readable.
_DECIMALS = 4
#: Parts of the names of what writes to the residual stream, by architectures' habits: the output
#: projections of attention, and those of the feed-forward part.
_WRITERS = (
    ("o_proj", "c_proj", "out_proj", "attention.dense", "attn.dense", "attention.wo"),
    ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", ".w2."),
)
#: Norms between those projections and the stream, which undo a scale.
_NORMS_AFTER = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_self_attn_layernorm")


def _as_range(depth: Any) -> Any:
    """One number as a range that holds only that."""
    return depth if isinstance(depth, list | tuple) else (depth, depth)


class Stacking(Config):
    """Layers of the parents stacked anew: the data flow space of arXiv:2403.13187.

    A candidate is up to `segments` runs, each of consecutive layers of one parent. Runs may
    overlap, so that layers repeat, and leave layers out.
    """

    #: Layers of a candidate, at least and at most; one number fixes it.
    depth: Annotated[
        tuple[int, int], BeforeValidator(_as_range, json_schema_input_type=int | tuple[int, int])
    ]
    segments: int = Field(default=3, ge=1)
    #: By what is multiplied what a layer adds to the stream, from and to; None means 1.
    scale: tuple[float, float] | None = None
    #: What has a scale of its own.
    scale_per: Literal["segment", "layer"] = "segment"

    @field_validator("depth")
    @classmethod
    def _ordered(cls, depth: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= depth[0] <= depth[1]:
            raise ValueError(f"depth is [least, most] with 1 <= least <= most, got {list(depth)}")
        return depth

    @field_validator("scale")
    @classmethod
    def _a_range(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not scale[0] < scale[1]:
            raise ValueError(f"scale is [low, high] with low < high, got {list(scale)}")
        return scale

    def check(self, n_layers: int) -> None:
        """Refuse a depth that runs of a parent's layers cannot reach.

        Args:
            n_layers: the depth of the parents.

        Raises:
            InputError: it cannot be reached.
        """
        if self.depth[1] > self.segments * n_layers:
            raise InputError(
                f"stacking.depth must be at most segments x layers of a parent, got "
                f"{self.depth[1]} for {self.segments} x {n_layers}; take more segments or less "
                "depth"
            )


class _Layer(NamedTuple):
    """One layer of a candidate."""

    model: ModelRef
    number: int
    scale: float


class _Run(NamedTuple):
    """Consecutive layers of a parent."""

    parent: str
    first: int
    length: int


def suggest_stack(
    stacking: Stacking,
    parents: Mapping[str, ModelRef],
    trial: "optuna.trial.BaseTrial",
    n_layers: int,
    filters: Sequence[str] = (),
) -> Recipe:
    """Make the stack that a trial proposes; any draw has a depth within the bounds.

    Each segment but the last has a share of the layers that it may take, and may take none. Each
    has a parent and a first layer, nearer to the bottom where the run would not fit. Two trials
    with the same layers are one recipe.

    Args:
        stacking: what may be proposed; `Stacking.check` has accepted the depth.
        parents: by name.
        trial: an Optuna trial; its `suggest_*` functions are called.
        n_layers: the depth of the parents.
        filters: what a scale applies to (`residual_filters`); unused where none is searched.
    """
    least, most = stacking.depth
    depth = least if least == most else trial.suggest_int("stack.depth", least, most)
    shares = [trial.suggest_float(f"stack.share.{i}", 0, 1) for i in range(stacking.segments - 1)]
    names = tuple(parents)
    places: list[tuple[ModelRef, int]] = []
    segment_of: list[int] = []
    for i, length in enumerate(_lengths(depth, shares, n_layers)):
        parent = names[0]
        if len(names) > 1:
            parent = trial.suggest_categorical(f"stack.parent.{i}", names)
        first = min(trial.suggest_int(f"stack.first.{i}", 0, n_layers - 1), n_layers - length)
        places += [(parents[parent], first + k) for k in range(length)]
        segment_of += [i] * length
    scales = [_scale(stacking, trial, key) for key in _scale_keys(stacking)]
    which = segment_of if stacking.scale_per == "segment" else range(depth)
    layers = [
        _Layer(model, number, scales[i] if scales else 1.0)
        for (model, number), i in zip(places, which, strict=True)
    ]
    return _recipe(layers, filters)


def stack_starts(
    stacking: Stacking, parents: Mapping[str, ModelRef], n_layers: int
) -> list[tuple[str, dict[str, Any]]]:
    """List points worth trying first, each with a label: those that the space holds.

    These are each parent as it is, and the first layers of each below its own last and those of the
    next parent. Where depth allows it they overlap, and make one and a half times the depth; one
    parent twice is then the depth up-scaling of arXiv:2312.15166.

    Args:
        stacking: the space.
        parents: by name.
        n_layers: the depth of the parents.
    """
    least, most = stacking.depth
    if stacking.scale is not None and not stacking.scale[0] <= 1 <= stacking.scale[1]:
        return []
    starts = []
    if least <= n_layers <= most:
        for name in parents:
            runs = [_Run(name, 0, n_layers)]
            starts.append((f"all layers of {name}", _point(stacking, parents, n_layers, runs)))
    depth = min(most, max(least, 3 * n_layers // 2))
    if stacking.segments > 1 and 2 <= depth <= 2 * n_layers:
        below, above = depth - depth // 2, depth // 2
        names = list(parents)
        twice = list(zip(names, names, strict=True)) if depth != n_layers else []  # else as it is
        in_turn = zip(names, [*names[1:], names[0]], strict=True) if len(names) > 1 else ()
        for one, other in [*twice, *in_turn]:
            runs = [_Run(one, 0, below), _Run(other, n_layers - above, above)]
            label = f"first {below} layers of {one}, last {above} of {other}"
            starts.append((label, _point(stacking, parents, n_layers, runs)))
    return starts


def largest_stack(
    stacking: Stacking,
    parents: Mapping[str, ModelRef],
    n_layers: int,
    filters: Sequence[str] = (),
) -> Recipe:
    """Make a stack that takes as much memory and time as any; as for `suggest_stack`."""
    model = next(iter(parents.values()))
    low, high = stacking.scale or (1.0, 1.0)
    scale = low if high == 1 else high
    depth = stacking.depth[1]
    return _recipe([_Layer(model, i % n_layers, scale) for i in range(depth)], filters)


def residual_filters(names: Iterable[str]) -> tuple[str, ...]:
    """Find the filters of what a layer writes to the residual stream, biases included.

    Args:
        names: of a model's tensors.

    Raises:
        InputError: the architecture is not known, or norms come in between.
    """
    names = list(names)
    if after := [norm for norm in _NORMS_AFTER if any(norm in name for name in names)]:
        raise InputError(
            f"stacking.scale must reach the residual stream, but these models normalize what a "
            f"layer adds ({after[0]}); leave scale out"
        )
    known = [[part for part in parts if any(part in name for name in names)] for parts in _WRITERS]
    if [] in known:
        raise InputError(
            "stacking.scale needs the projections to the residual stream, but no tensor's name "
            f"contains any of {', '.join(_WRITERS[known.index([])])}; leave scale out"
        )
    return tuple(dict.fromkeys(part for parts in known for part in parts))


def _lengths(depth: int, shares: Sequence[float], n_layers: int) -> list[int]:
    """Divide the layers: each segment takes a share of what the others can do without."""
    lengths, left = [], depth
    for i, share in enumerate(shares):
        least, most = _bounds(left, len(shares) - i, n_layers)
        lengths.append(min(least + int(share * (most - least + 1)), most))
        left -= lengths[-1]
    return [*lengths, left]


def _bounds(left: int, n_after: int, n_layers: int) -> tuple[int, int]:
    """Return the fewest and most layers of a segment, with so many segments after it."""
    return max(0, left - n_after * n_layers), min(left, n_layers)


def _scale_keys(stacking: Stacking) -> list[str]:
    """List the study's names of the scales."""
    if stacking.scale is None:
        return []
    n = stacking.segments if stacking.scale_per == "segment" else stacking.depth[1]
    return [f"stack.scale.{i}" for i in range(n)]


def _scale(stacking: Stacking, trial: "optuna.trial.BaseTrial", key: str) -> float:
    assert stacking.scale is not None
    low, high = stacking.scale
    return min(max(round(trial.suggest_float(key, low, high), _DECIMALS), low), high)


def _point(
    stacking: Stacking, parents: Mapping[str, ModelRef], n_layers: int, runs: Sequence[_Run]
) -> dict[str, Any]:
    """Find the parameters at which a trial proposes these runs, unscaled."""
    empty = _Run(runs[-1].parent, 0, 0)
    segments = [*runs, *[empty] * (stacking.segments - len(runs))]
    left = sum(run.length for run in runs)
    params: dict[str, Any] = {}
    if stacking.depth[0] < stacking.depth[1]:
        params["stack.depth"] = left
    for i, run in enumerate(segments):
        if n_after := stacking.segments - 1 - i:
            least, most = _bounds(left, n_after, n_layers)
            # the middle of the shares that come to this length
            params[f"stack.share.{i}"] = (run.length - least + 0.5) / (most - least + 1)
            left -= run.length
        if len(parents) > 1:
            params[f"stack.parent.{i}"] = run.parent
        params[f"stack.first.{i}"] = run.first
    return params | dict.fromkeys(_scale_keys(stacking), 1.0)


def _recipe(layers: Sequence[_Layer], filters: Sequence[str]) -> Recipe:
    """Make a passthrough recipe of these layers, with as few slices as can be."""
    runs: list[list[_Layer]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1]._replace(number=runs[-1][-1].number + 1):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    sources = [
        Source(
            model=run[0].model,
            layer_range=(run[0].number, run[-1].number + 1),
            parameters=_parameters(run[0].scale, filters),
        )
        for run in runs
    ]
    return Recipe(
        merge_method="passthrough", slices=tuple(Slice(sources=(source,)) for source in sources)
    )


def _parameters(scale: float, filters: Sequence[str]) -> dict[str, tuple[Conditional, ...]]:
    if scale == 1:
        return {}
    cases = [Conditional(filter=name, value=scale) for name in filters]
    return {"scale": (*cases, Conditional(value=1.0))}
