"""The places of coefficients: groups of tensors, and spans of layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mergesearch.parents import layer_of
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
    >>> places = Places.of(names, 2, Learned(granularity="tensor"), Granularity())
    >>> places.groups
    ('mlp.down', 'mlp.up')
    >>> places.place[names[2]]
    Place(group='mlp.up', span=(1, 2))
    """

    #: By the tensor's name.
    place: Mapping[str, Place]
    #: In the order in which a recipe's filters are tried; `EVERYTHING` is the last.
    groups: tuple[str, ...]
    #: Of each layer the span that it is in.
    spans: tuple[Span, ...]

    @classmethod
    def of(
        cls, names: Sequence[str], n_layers: int, learned: Learned, granularity: Granularity
    ) -> "Places":
        """Find the places of tensors.

        Args:
            names: of the tensors that coefficients change.
            n_layers: of the model.
            learned: says which tensors have coefficients of their own.
            granularity: of the space: its blocks and groups.
        """
        if learned.granularity == "model":
            return cls({name: Place(EVERYTHING, None) for name in names}, (EVERYTHING,), ())
        blocks = [(i, i + 1) for i in range(n_layers)]
        if learned.granularity == "block":
            blocks = boundaries(n_layers, granularity)
        spans = tuple(span for span in blocks for _ in range(*span))
        groups = {name: _group(name, learned, granularity) for name in names}
        ordered = _ordered(groups, names)
        if any(_first_match(ordered, name) != groups[name] for name in names):
            # a module's name ends another's: dots tell them apart
            groups = {n: f".{g}." if layer_of(n) is not None else g for n, g in groups.items()}
            ordered = _ordered(groups, names)
        place = {}
        for name, group in groups.items():
            layer = layer_of(name)
            place[name] = Place(group, None if layer is None else spans[layer])
        return cls(place, ordered, spans)

    def varies(self, group: str) -> bool:
        """Say if a group has a coefficient for each span of layers."""
        return any(p.group == group and p.span is not None for p in self.place.values())


def _group(name: str, learned: Learned, granularity: Granularity) -> str:
    """Name the group of a tensor: its own name where it is outside the layers."""
    layer = layer_of(name)
    if layer is None:
        return name
    if learned.granularity == "tensor":  # the weight and bias of a module are one
        return name.partition(f".{layer}.")[2].rpartition(".")[0]
    if learned.granularity == "block":
        return next((group for group in granularity.groups if group in name), EVERYTHING)
    return EVERYTHING


def _ordered(groups: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    """Put what is outside the layers first, then the longest; everything is the last."""
    outside = {groups[name] for name in names if layer_of(name) is None}
    return tuple(
        sorted(
            dict.fromkeys(groups.values()),
            key=lambda g: (g not in outside, g == EVERYTHING, -len(g), g),
        )
    )


def _first_match(groups: Sequence[str], name: str) -> str | None:
    """Find the filter that a recipe would take for a tensor."""
    return next((group for group in groups if group in name), None)
