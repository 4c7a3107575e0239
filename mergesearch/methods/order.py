"""Order statistics of magnitudes: which entries are among the k largest, exactly."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mergesearch.methods.formula import Formula, index_of, numbers
from mergesearch.methods.inputs import Inputs

# A float32 of positive sign, read as an integer, is ordered as the float is. Its upper half is
# one of 32,768 bins: the sign's bit is 0, 8 bits are the exponent, 7 the leading digits.
_BINS = 32_768
#: The bin of infinity; those above hold NaN.
_NOT_FINITE = 0x7F80


@dataclass(frozen=True)
class Histogram:
    """Counts of magnitudes by bin, for the bins between the smallest and the largest."""

    lowest: int
    #: int64, of shape (bins,): entries in this bin and all above it.
    from_above: Tensor

    def bin_of(self, rank: int) -> tuple[int, int]:
        """Bin that holds the rank-th largest (from 1), and its rank within the bin."""
        # counts fall from left to right; the last one that still reaches the rank is the bin's
        bin_ = int((self.from_above >= rank).sum()) - 1
        above = int(self.from_above[bin_ + 1]) if bin_ + 1 < len(self.from_above) else 0
        return self.lowest + bin_, rank - above


@dataclass(frozen=True)
class Cut:
    """The k-th largest magnitude: k are above it, or at it up to index `last`."""

    threshold: float
    last: int


#: Below every entry: all are among the largest.
EVERYTHING = Cut(-1.0, -1)
#: Above every entry: none is.
NOTHING = Cut(float("inf"), -1)


def tabulate(inputs: Inputs, magnitude: Formula) -> Histogram:
    """Count magnitudes by bin, in one pass.

    Args:
        inputs: what the magnitudes are of.
        magnitude: gives them, float32 and not negative, entry by entry.
    """
    counts = torch.zeros(_BINS, dtype=torch.int64)
    # once for each tensor, which takes less than to compile it would
    as_it_stands, block = replace(magnitude, heavy=False), inputs.executor.heavy_block
    for _, value in inputs.values(as_it_stands, block=block):
        # half as wide, and counted twice as fast; a NaN may have a sign
        bins = (value.view(torch.int32) >> 16).to(torch.int16) & (_BINS - 1)
        counts += torch.bincount(bins.flatten(), minlength=_BINS).cpu()
    filled = counts.nonzero().flatten()
    lowest, highest = int(filled[0]), int(filled[-1])
    from_above = counts[lowest : highest + 1].flip(0).cumsum(0).flip(0)
    return Histogram(lowest, from_above)


def cut(inputs: Inputs, magnitude: Formula, histogram: Histogram, kept: int) -> Cut:
    """Cut below the `kept` largest magnitudes; see `cuts`."""
    return cuts(inputs, magnitude, histogram, [kept])[0]


def cuts(
    inputs: Inputs, magnitude: Formula, histogram: Histogram, kept: Sequence[int]
) -> list[Cut]:
    """Cuts below so many largest magnitudes; among equals lower indices come first.

    The histogram gives the bins, and one pass over the entries of these the exact values.
    """
    within = {k: histogram.bin_of(k) for k in kept if 0 < k < inputs.n_entries}
    wanted = {bin_ for bin_, _ in within.values() if bin_ < _NOT_FINITE}
    indices: dict[int, list[Tensor]] = {bin_: [] for bin_ in wanted}
    if wanted:
        for rows, value in inputs.values(magnitude):
            bins = _bins(value)
            for bin_, parts in indices.items():
                parts.append(_indices(bins == bin_) + rows.start * inputs.shape[1])

    def one(k: int) -> Cut:
        if k not in within:
            return EVERYTHING if k > 0 else NOTHING
        bin_, rank = within[k]
        if bin_ not in indices:
            # all that is infinite, and NaN is kept anyhow
            return Cut(float("inf"), inputs.n_entries)
        index = torch.cat(indices[bin_])
        values = _at(inputs, magnitude, index)
        threshold = torch.kthvalue(values, len(values) - rank + 1).values
        needed = rank - int((values > threshold).sum())
        return Cut(float(threshold), int(index[values == threshold][needed - 1]))

    return [one(k) for k in kept]


def _at(inputs: Inputs, magnitude: Formula, index: Tensor) -> Tensor:
    """Magnitudes at some entries, by their flat index."""

    def picked(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1)[index.to(tensor.device)].to(index.device).float()

    base = None if inputs.base is None else picked(inputs.base)
    return magnitude.function(base, [picked(model) for model in inputs.models])


def _bins(magnitude: Tensor) -> Tensor:
    """Bin of each magnitude, int16 of its shape: the upper half of its pattern."""
    halves = magnitude.contiguous().view(torch.int16).view(*magnitude.shape, 2)
    return halves[..., 1 if sys.byteorder == "little" else 0]


def _indices(mask: Tensor) -> Tensor:
    """Flat indices at which a mask holds, for one that seldom does."""
    # eight entries at a time
    mask = mask.flatten()
    n = mask.numel() // 8 * 8
    eights = mask[:n].view(torch.int64).nonzero()  # (k, 1)
    near = (8 * eights + torch.arange(8, device=mask.device)).flatten()
    rest = mask[n:].nonzero().flatten() + n
    return torch.cat([near[mask[near]], rest])


def cut_constants(of_models: Sequence[Cut], inputs: Inputs) -> dict[str, Tensor]:
    """Cuts as tensors, one entry for each model."""
    index = torch.int32 if inputs.n_entries < 2**31 else torch.int64
    return {
        "threshold": numbers([c.threshold for c in of_models], inputs),
        "last": torch.tensor([c.last for c in of_models], dtype=index, device=inputs.device),
    }


def among(magnitude: Tensor, threshold: Tensor, last: Tensor, first: Tensor) -> Tensor:
    """Mask of a block's entries among the largest, by a cut; a NaN always is."""
    beyond = (magnitude == threshold) & (index_of(first, magnitude) > last)
    return ~((magnitude < threshold) | beyond)


def delta_magnitude(base: Tensor, models: Sequence[Tensor]) -> Tensor:
    """|W - W0| of the one model."""
    return (models[0] - base).abs()


DELTA = Formula(delta_magnitude, heavy=True)


def delta_cuts(inputs: Inputs, i: int, *kept: int) -> list[Cut]:
    """Cuts below so many largest entries of the i-th task vector."""
    one = inputs.only(i)
    if not any(0 < k < inputs.n_entries for k in kept):
        return [EVERYTHING if k else NOTHING for k in kept]
    histogram = one.recall("histogram of magnitudes", lambda: tabulate(one, DELTA))
    return cuts(one, DELTA, histogram, kept)
