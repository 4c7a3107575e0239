"""The method passes the contract of the project's own; collected where the package is installed."""

from foreign_merge import MIDRANGE

from mergesearch.testing import MethodContract


class TestMidrange(MethodContract):
    method = MIDRANGE
