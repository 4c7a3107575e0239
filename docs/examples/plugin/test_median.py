"""The median keeps the contract of merge methods."""

from mergesearch.testing import MethodContract
from more_merging.method import MEDIAN


class TestMedian(MethodContract):
    """What every method must pass."""

    method = MEDIAN
    robust = True
