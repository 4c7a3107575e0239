"""A merge method of somebody else's: its row, which needs no torch."""

from mergesearch.methods import Method, Parameter

MIDRANGE = Method(
    "foreign_merge.midrange:midrange",
    (Parameter("lambda", default=1.0, search=(0.0, 1.5), shared=True),),
    base="required",
    source="somebody",
    in_mergekit=False,
)
