"""The median keeps the contract of merge methods."""

from more_merging.method import MEDIAN

from mergesearch.testing import MethodContract


class TestMedian(MethodContract):
    """What every method must pass."""

    method = MEDIAN
    robust = True
