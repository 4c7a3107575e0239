"""The places of coefficients: groups of tensors, and spans of layers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mergesearch.errors import InputError
from mergesearch.parents import layer_of, tower_of
from mergesearch.space import Granularity, Learned, boundaries

#: All tensors in the layers, or all of a model: no filter.
EVERYTHING = ""

#: The first layer, and the one behind the last.
Span = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """The tensors that share a coefficient of each parent."""

    #: A part of names that no other group's tensors have, or `EVERYTHING`.
    group: str
    #: None where layers make no difference, or the group is outside them.
    span: Span | None


@dataclass(frozen=True)
class Places:
    """The place of each tensor that coefficients change.

    >>> names = [f"model.layers.{i}.{m}.weight" for i in (0, 1) for m in ("mlp.up", "mlp.down")]
    >>> places = Places.of(names, {"model.layers.": 2}, 2, Learned(), Granularity())
    >>> list(places.spans)
    ['mlp.down', 'mlp.up']
    >>> places.place[names[2]]
    Place(group='mlp.up', span=(1, 2))
    """

    place: Mapping[str, Place]
    #: Of each group the span of each layer; one that is None where layers make no difference. The
    #: groups are in the order in which their filters are tried, `EVERYTHING` the last.
    spans: Mapping[str, tuple[Span | None, ...]]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        depths: Mapping[str, int],
        n_layers: int,
        learned: Learned,
        granularity: Granularity,
    ) -> "Places":
        """Find the places of tensors.

        The layers of a tower of another depth than the language model's are a group of their own:
        a list of values is spread over the depth, and says for each which layer it means only where
        there are as many.

        Args:
            names: of the tensors that coefficients change.
            depths: of all towers of the model, by what stands before the layer in names.
            n_layers: of the language model.
            learned: says which tensors have coefficients of their own.
            granularity: of the space: its blocks and groups.

        Raises:
            InputError: no filters tell the groups apart.
        """
        if learned.granularity == "model":
            return cls({name: Place(EVERYTHING, None) for name in names}, {EVERYTHING: (None,)})
        apart = {tower for tower, depth in depths.items() if depth != n_layers}
        groups = {name: _group(name, apart, learned, granularity) for name in names}
        for ordered, filters in _filters(groups, apart):
            if all(_first_match(ordered, name) == filters[name] for name in names):
                break
        else:
            raise InputError(
                f"learned: by {learned.granularity} no filters tell the tensors of these models "
                "apart; take granularity: model"
            )
        place: dict[str, Place] = {}
        spans: dict[str, tuple[Span | None, ...]] = dict.fromkeys(ordered, (None,))
        for name, group in filters.items():
            layer = layer_of(name)
            if layer is not None:
                spans[group] = _spans(depths[tower_of(name)], learned, granularity)
            place[name] = Place(group, None if layer is None else spans[group][layer])
        return cls(place, spans)


def _spans(n_layers: int, learned: Learned, granularity: Granularity) -> tuple[Span, ...]:
    """Give the span of each layer."""
    blocks = [(i, i + 1) for i in range(n_layers)]
    if learned.granularity == "block":
        blocks = boundaries(n_layers, granularity)
    return tuple(span for span in blocks for _ in range(*span))


def _group(name: str, apart: set[str], learned: Learned, granularity: Granularity) -> str:
    """Name the group of a tensor: its own name where it is outside the layers."""
    layer, tower = layer_of(name), tower_of(name)
    if layer is None:
        return name
    if tower in apart:
        return tower
    if learned.granularity == "tensor":  # the weight and bias of a module are one
        return name.partition(f".{layer}.")[2].rpartition(".")[0]
    if learned.granularity == "block":
        return next((group for group in granularity.groups if group in name), EVERYTHING)
    return EVERYTHING


def _filters(
    groups: Mapping[str, str], apart: set[str]
) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """List orders and spellings of the filters, with the one of each tensor."""

    def dotted(name: str, group: str) -> str:
        inner = layer_of(name) is not None and group not in (EVERYTHING, *apart)
        return f".{group}." if inner else group

    def towered(name: str, group: str) -> str:
        return dotted(name, group) or tower_of(name)

    # a module's name may end another's, which dots tell apart; a tensor's outside the layers may
    # end one's within, where these come first, by what stands before the layer if need be
    for spelled in (lambda _, group: group, dotted, towered):
        own = {name: spelled(name, group) for name, group in groups.items()}
        outside = {group for name, group in own.items() if layer_of(name) is None}
        known = sorted(set(own.values()), key=lambda g: (g not in apart, -len(g), g))
        last = [EVERYTHING] if EVERYTHING in known else []
        within = [group for group in known if group not in (*outside, EVERYTHING)]
        without = [group for group in known if group in outside]
        yield (*without, *within, *last), own
        yield (*within, *without, *last), own


def _first_match(groups: Sequence[str], name: str) -> str | None:
    """Find the filter that a recipe would take for a tensor."""
    return next((group for group in groups if group in name), None)
