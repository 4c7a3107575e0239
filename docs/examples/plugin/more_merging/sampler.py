"""A tree of Parzen estimators that takes more trials for good, and so explores more."""

from mergesearch.samplers import Sampler

WIDE_TPE = Sampler("more_merging.wide_tpe:make")
