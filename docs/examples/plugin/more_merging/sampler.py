"""The row of the thorough TPE: all that spaces need to know of it."""

from mergesearch.samplers import Sampler

THOROUGH_TPE = Sampler("more_merging.thorough_tpe:make")
