"""Order statistics of magnitudes: which entries are among the k largest, exactly."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergesearch.methods.formula import Formula, index_of
from mergesearch.methods.inputs import Inputs

# A float32 of positive sign, read as an integer, is ordered as the float is. Its upper half is
# one of 32,768 bins: the sign's bit is 0, 8 bits are the exponent, 7 the leading digits.
_BINS = 32_768
#: The bin of infinity; those above hold NaN.
_NOT_FINITE = 0x7F80


@dataclass(frozen=True)
class Table:
    """How many magnitudes lie in each bin, for the bins between the smallest and the largest."""

    lowest: int
    #: int64, of shape (bins,): entries in this bin and all above it.
    from_above: Tensor

    def bin_of(self, rank: int) -> tuple[int, int]:
        """The bin that holds the rank-th largest (from 1), and its rank within the bin."""
        # counts fall from left to right; the last one that still reaches the rank is the bin's
        place = int((self.from_above >= rank).sum()) - 1
        above = int(self.from_above[place + 1]) if place + 1 < len(self.from_above) else 0
        return self.lowest + place, rank - above


@dataclass(frozen=True)
class Cut:
    """The k-th largest magnitude: entries above it, and at it those up to index `last`, are k."""

    threshold: float
    last: int


#: Below every entry: all are among the largest.
EVERYTHING = Cut(-1.0, -1)
#: Above every entry: none is.
NOTHING = Cut(float("inf"), -1)


def tabulate(inputs: Inputs, magnitude: Formula) -> Table:
    """Count magnitudes by bin, in one pass.

    Args:
        inputs: what the magnitudes are of.
        magnitude: gives them, float32 and not negative, entry by entry.
    """
    counts = torch.zeros(_BINS, dtype=torch.int64)
    for _, value in inputs.values(magnitude):
        bins = _bins(value).flatten().to(torch.int32) & (_BINS - 1)  # a NaN may have a sign
        counts += torch.bincount(bins, minlength=_BINS).cpu()
    filled = counts.nonzero().flatten()
    lowest, highest = int(filled[0]), int(filled[-1])
    from_above = counts[lowest : highest + 1].flip(0).cumsum(0).flip(0)
    return Table(lowest, from_above)


def cut(inputs: Inputs, magnitude: Formula, table: Table, kept: int) -> Cut:
    """Where the `kept` largest magnitudes end; see `cuts`."""
    return cuts(inputs, magnitude, table, [kept])[0]


def cuts(inputs: Inputs, magnitude: Formula, table: Table, kept: Sequence[int]) -> list[Cut]:
    """Where the so many largest magnitudes end; among equals those of lower index come first.

    The table gives the bins, and one pass over the entries of these the exact values.
    """
    within = {k: table.bin_of(k) for k in kept if 0 < k < inputs.n_entries}
    wanted = {place for place, _ in within.values() if place < _NOT_FINITE}
    found: dict[int, list[Tensor]] = {place: [] for place in wanted}
    if wanted:
        for rows, value in inputs.values(magnitude):
            bins = _bins(value)
            for place, parts in found.items():
                parts.append(_places(bins == place) + rows.start * inputs.shape[1])

    def one(k: int) -> Cut:
        if k not in within:
            return EVERYTHING if k > 0 else NOTHING
        place, rank = within[k]
        if place not in found:
            # all that is infinite, and NaN is kept anyhow
            return Cut(float("inf"), inputs.n_entries)
        index = torch.cat(found[place])
        values = _at(inputs, magnitude, index)
        threshold = torch.kthvalue(values, len(values) - rank + 1).values
        needed = rank - int((values > threshold).sum())
        return Cut(float(threshold), int(index[values == threshold][needed - 1]))

    return [one(k) for k in kept]


def _at(inputs: Inputs, magnitude: Formula, index: Tensor) -> Tensor:
    """The magnitudes at some entries, by their flat index."""
    base = None if inputs.base is None else inputs.base.reshape(-1)[index].float()
    models = [model.reshape(-1)[index].float() for model in inputs.models]
    return magnitude.function(base, models)


def _bins(magnitude: Tensor) -> Tensor:
    """The bin of each magnitude, int16 of its shape: the upper half of its pattern."""
    halves = magnitude.contiguous().view(torch.int16).view(*magnitude.shape, 2)
    return halves[..., 1 if sys.byteorder == "little" else 0]


def _places(mask: Tensor) -> Tensor:
    """The flat indices where a mask holds, for one that seldom does: eight entries at a time."""
    mask = mask.flatten()
    n = mask.numel() // 8 * 8
    eights = mask[:n].view(torch.int64).nonzero()  # (k, 1)
    near = (8 * eights + torch.arange(8, device=mask.device)).flatten()
    rest = mask[n:].nonzero().flatten() + n
    return torch.cat([near[mask[near]], rest])


def among(magnitude: Tensor, threshold: Tensor, last: Tensor, first: Tensor) -> Tensor:
    """Which entries of a block are among the largest, by a cut's two numbers; a NaN always is."""
    beyond = (magnitude == threshold) & (index_of(first, magnitude) > last)
    return ~((magnitude < threshold) | beyond)


def delta_magnitude(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """|W - W0| of the one model."""
    return (models[0] - base).abs()


DELTA = Formula(delta_magnitude, heavy=True)


def delta_cuts(inputs: Inputs, i: int, *kept: int) -> list[Cut]:
    """Where the so many largest entries of the i-th task vector end."""
    one = inputs.only(i)
    if not any(0 < k < inputs.n_entries for k in kept):
        return [EVERYTHING if k else NOTHING for k in kept]
    table = one.recall("table of magnitudes", lambda: tabulate(one, DELTA))
    return cuts(one, DELTA, table, kept)
