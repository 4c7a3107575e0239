"""The row of the median: all that recipes, spaces and the kernel need to know of it."""

from mergesearch.methods import Method, Parameter

MEDIAN = Method(
    "more_merging.median:median",  # imported at its first use, since torch is slow to import
    (Parameter("lambda", default=1.0, search=(0.1, 2.0), by_block=True, shared=True),),
    base="required",
    source="more-merging",
    in_mergekit=False,
)
