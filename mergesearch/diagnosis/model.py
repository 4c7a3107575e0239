"""The diagnosis of a space's parents, as data: to and from JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import sqrt
from pathlib import Path

from mergesearch.config import Config, parse, read_text
from mergesearch.errors import InputError

#: The name of the base among scored models, which no parent can have.
BASE = "base"
#: The file of a run's folder that holds its diagnosis.
FILE = "diagnosis.json"


class Pair(Config):
    """Two parents' deltas in one part of the model."""

    first: str
    second: str
    #: Of the angle between the deltas; None where one is zero.
    cosine: float | None
    #: Entries that are among the largest fifth of their tensor in both deltas.
    shared: int
    #: Those of them with opposite signs.
    opposite: int
    #: tr(G H) / (|G| |H|) with G = DᵀD of one delta and H of the other, in [0, 1]: 0 where the
    #: inputs that the two respond to are orthogonal; None of vectors.
    overlap: float | None
    #: The overlap that two deltas of these effective ranks have by chance, their directions drawn
    #: at random: sqrt(rank rank) by the number of inputs. None where there is no overlap.
    chance: float | None = None

    @property
    def conflict(self) -> float | None:
        """The share of opposite signs among entries large in both; None without such."""
        return self.opposite / self.shared if self.shared else None


class Part(Config):
    """The tensors of one group in one layer, or outside the layers."""

    layer: int | None
    group: str
    n_entries: int
    #: The norm of the base's tensors.
    base: float
    #: The norm of each parent's delta.
    deltas: Mapping[str, float]
    #: The effective rank of each parent's delta, |D|⁴ / |DᵀD|²: as many equal singular values have
    #: it; the mean of the matrices by their share of the delta. None where there is none.
    ranks: Mapping[str, float | None]
    pairs: tuple[Pair, ...]

    def size(self, parent: str) -> float:
        """Divide the norm of a parent's delta by that of the base."""
        return self.deltas[parent] / self.base if self.base else 0.0

    def pair(self, first: str, second: str) -> Pair:
        """Look two parents up, in either order."""
        return next(p for p in self.pairs if {p.first, p.second} == {first, second})


def together(parts: Sequence[Part]) -> Part:
    """Sum parts up as one: norms and angles of all tensors; ranks as means.

    Args:
        parts: at least one; the result is called as the first is.
    """
    parents = list(parts[0].deltas)
    deltas = {name: _root(part.deltas[name] ** 2 for part in parts) for name in parents}
    pairs = []
    for first, second in combinations(parents, 2):
        own = [
            (part.pair(first, second), part.deltas[first] * part.deltas[second]) for part in parts
        ]
        scale = deltas[first] * deltas[second]
        dot = sum((pair.cosine or 0.0) * weight for pair, weight in own)
        pairs.append(
            Pair(
                first=first,
                second=second,
                cosine=dot / scale if scale else None,
                shared=sum(pair.shared for pair, _ in own),
                opposite=sum(pair.opposite for pair, _ in own),
                overlap=_mean((pair.overlap, weight) for pair, weight in own),
                chance=_mean((pair.chance, weight) for pair, weight in own),
            )
        )
    ranks = {n: _mean((p.ranks[n], p.deltas[n] ** 2) for p in parts) for n in parents}
    return Part(
        layer=parts[0].layer if len(parts) == 1 else None,
        group=parts[0].group,
        n_entries=sum(part.n_entries for part in parts),
        base=_root(part.base**2 for part in parts),
        deltas=deltas,
        ranks=ranks,
        pairs=tuple(pairs),
    )


def _layers(first: int, end: int) -> str:
    return f"layer {first}" if end - first == 1 else f"layers {first} to {end - 1}"


def _root(squares: Iterable[float]) -> float:
    return sqrt(sum(squares))


def _mean(weighted: Iterable[tuple[float | None, float]]) -> float | None:
    known = [(value, weight) for value, weight in weighted if value is not None and weight > 0]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else None


class Answers(Config):
    """Each model on one task of the suite, and the parents document by document."""

    task: str
    metric: str
    higher_is_better: bool
    n_documents: int
    #: The value of each model, the base's under `base`; None where it has none.
    values: Mapping[str, float | None]
    #: The mean over documents of the best parent on each: the union of right answers, and all
    #: that a perfect merge could reach. None where the metric is no mean of numbers, as below.
    best: float | None = None
    #: Of each parent, the share of documents on which it is better than each other one.
    ahead: Mapping[str, Mapping[str, float]] = {}
    #: Of each parent, the share of documents on which it is better than all others.
    alone: Mapping[str, float] = {}

    def agreement(self, first: str, second: str) -> float:
        """Give the share of documents on which two parents are equally right."""
        return 1 - self.ahead[first][second] - self.ahead[second][first]

    @property
    def leader(self) -> str | None:
        """The parent with the best value; None where one has none."""
        values = {name: value for name, value in self.values.items() if name != BASE}
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) < len(values):
            return None
        return (max if self.higher_is_better else min)(known, key=lambda name: known[name])


class Advice(Config):
    """A sentence that says what to do, and the numbers why."""

    #: The rule that it follows, by the name of its function.
    rule: str
    text: str

    def __str__(self) -> str:
        return self.text


class Diagnosis(Config):
    """All that is known of a space's parents before a search.

    >>> from pathlib import Path
    >>> from mergesearch import Diagnosis, SearchSpace, compare
    >>> diagnosis = compare(SearchSpace.load(Path("space.yaml")))
    >>> diagnosis.parents, diagnosis.n_layers
    (('one', 'two'), 4)
    >>> Diagnosis.from_json(diagnosis.to_json()) == diagnosis
    True
    """

    parents: tuple[str, ...]
    n_layers: int
    #: The edges of the layers' blocks that tables show, [first, end).
    blocks: tuple[tuple[int, int], ...]
    #: Where the space has no base there are no deltas, and this is empty.
    parts: tuple[Part, ...] = ()
    #: Settings of models and tokenizers that are not the same, a line each.
    differences: tuple[str, ...] = ()
    #: Where parents were not scored, this is empty.
    answers: tuple[Answers, ...] = ()
    advice: tuple[Advice, ...] = ()

    @property
    def rows(self) -> tuple[tuple[str, Part], ...]:
        """Parts as tables show them: each block of layers and group, with its name."""
        found = []
        for group in dict.fromkeys(part.group for part in self.parts):
            of_group = [part for part in self.parts if part.group == group]
            outside = [part for part in of_group if part.layer is None]
            found += [(group, part) for part in outside]
            for first, end in self.blocks:
                of_block = [p for p in of_group if p.layer is not None and first <= p.layer < end]
                if of_block:
                    found.append((f"{group}, {_layers(first, end)}", together(of_block)))
        return tuple(found)

    @property
    def whole(self) -> Part | None:
        """All parts as one, embeddings and norms too; None where there are none."""
        return together(self.parts) if self.parts else None

    def to_json(self) -> str:
        """Write it as JSON."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "diagnosis") -> "Diagnosis":
        """Read what `to_json` wrote.

        Args:
            text: JSON.
            where: what to call it in an error.

        Raises:
            InputError: it is no diagnosis.
        """
        try:
            data = json.loads(text)
        except ValueError:
            raise InputError(f"{where}: not valid JSON") from None
        return parse(cls, data, where)

    @classmethod
    def of_run(cls, folder: Path) -> "Diagnosis | None":
        """Read the diagnosis that a run's folder holds, if it holds one.

        Raises:
            InputError: its file is damaged.
        """
        path = folder / FILE
        return cls.from_json(read_text(path), str(path)) if path.exists() else None
