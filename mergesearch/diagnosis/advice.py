"""Advice: rules over a diagnosis' numbers.

`make bench-compare` measures what the rules on weights claim (results/benchmarks/compare.md); the
thresholds were set on the families that it measures, see docs/compare.md.
Cosines and opposite signs are shown and not advised on: where they are large, merges cost no more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mergesearch.diagnosis.model import Advice, Diagnosis, Part

#: From this overlap on, two deltas are said to respond to the same inputs.
OVERLAP = 0.25
#: And from this many times what chance gives on: deltas of many ranks overlap whatever they are.
OVER_CHANCE = 1.5
#: Below this ratio of the smallest delta's norm to the largest's, deltas are said to be uneven.
UNEVEN = 0.85
#: From this cosine on, two deltas are said to be one.
SAME = 0.95
#: Up to this share of a task's documents, a parent is said to add nothing.
NOTHING = 0.01
#: From this share of a delta's square on, and this many times each other parent's, it is said
#: to move a part outside the layers.
MOVED, MORE = 0.1, 2.0


@dataclass(frozen=True)
class Conflict:
    """Two parents that change the response to the same inputs, in one part."""

    row: str
    pair: tuple[str, str]
    overlap: float
    #: What chance gives, as far as it is known.
    chance: float | None


def advise(diagnosis: Diagnosis) -> tuple[Advice, ...]:
    """Say what a diagnosis' numbers recommend, each sentence with its numbers."""
    whole = diagnosis.whole
    found = [*_conflicts(diagnosis)]
    if whole is not None:
        found = [*_idle(whole), *_same(whole), *_uneven(whole), *_moved(diagnosis, whole), *found]
    return (*found, *_useless(diagnosis))


def conflicts(diagnosis: Diagnosis) -> tuple[Conflict, ...]:
    """Find parts whose deltas overlap beyond chance, the largest overlap first."""
    found = [
        Conflict(row, (pair.first, pair.second), pair.overlap, pair.chance)
        for row, part in diagnosis.rows
        if part.layer is not None or row != part.group  # in layers
        for pair in part.pairs
        if pair.overlap is not None
        and pair.overlap >= max(OVERLAP, OVER_CHANCE * (pair.chance or 0.0))
    ]
    return tuple(sorted(found, key=lambda conflict: -conflict.overlap))


def _conflicts(diagnosis: Diagnosis) -> Iterator[Advice]:
    by_row: dict[str, list[Conflict]] = {}
    for conflict in conflicts(diagnosis):
        by_row.setdefault(conflict.row, []).append(conflict)
    for row, those in by_row.items():
        pairs = ", ".join(f"{' and '.join(c.pair)} ({_overlap(c)})" for c in those)
        yield Advice(
            rule="conflict",
            text=f"{row}: {pairs} change how the model responds to the same inputs, so that adding "
            "one's delta changes the other's answers; give this part weights of its own "
            "(granularity: blocks and groups)",
        )


def _overlap(of: Conflict) -> str:
    chance = "" if of.chance is None else f", {of.chance:.0%} by chance"
    return f"overlap {of.overlap:.0%}{chance}"


def _moved(diagnosis: Diagnosis, whole: Part) -> Iterator[Advice]:
    """Name parents that change embeddings or the head much more than the others do."""
    for part in diagnosis.parts:
        if part.layer is not None or not any(part.ranks.values()):  # norms are no matrices
            continue
        shares = {
            name: (delta / whole.deltas[name]) ** 2 if whole.deltas[name] else 0.0
            for name, delta in part.deltas.items()
        }
        if len(shares) < 2:
            continue
        second, first = sorted(shares, key=shares.__getitem__)[-2:]
        if shares[first] >= max(MOVED, MORE * shares[second]):
            yield Advice(
                rule="moved",
                text=f"{first} moves {part.group}: {shares[first]:.0%} of its delta's square lies "
                f"there ({part.size(first):.2%} of the base's norm), of the others' at most "
                f"{shares[second]:.0%} ({second}, {part.size(second):.2%}); give {part.group} a "
                "weight of its own (granularity: groups)",
            )


def _idle(whole: Part) -> Iterator[Advice]:
    for name, norm in whole.deltas.items():
        if norm == 0:
            yield Advice(rule="idle", text=f"{name} is the base, its delta is 0; leave it out")


def _same(whole: Part) -> Iterator[Advice]:
    for pair in whole.pairs:
        if pair.cosine is not None and pair.cosine >= SAME:
            yield Advice(
                rule="same",
                text=f"{pair.first} and {pair.second} change the same (cosine {pair.cosine:.2f}, "
                f"sizes {whole.size(pair.first):.2%} and {whole.size(pair.second):.2%} of the "
                "base); one of them will do",
            )


def _uneven(whole: Part) -> Iterator[Advice]:
    sizes = {name: whole.size(name) for name, norm in whole.deltas.items() if norm}
    if len(sizes) < 2:
        return
    least, most = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if sizes[least] < UNEVEN * sizes[most]:
        yield Advice(
            rule="uneven",
            text=f"{least} changed least ({sizes[least]:.2%} of the base's norm, {most} "
            f"{sizes[most]:.2%}): at equal weights it loses most; let weights differ by parent, "
            "and reach above 1",
        )


def _useless(diagnosis: Diagnosis) -> Iterator[Advice]:
    compared = [of for of in diagnosis.answers if len(of.alone) > 1]
    if not compared:
        return
    for name in diagnosis.parents:
        most = max(of.alone.get(name, 1.0) for of in compared)
        if most <= NOTHING and all(of.leader != name for of in compared):
            yield Advice(
                rule="useless",
                text=f"{name} leads on no task, and answers at most {most:.1%} of a task's "
                "documents that no other parent does; leave it out, or let subset choose",
            )
