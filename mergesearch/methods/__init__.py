"""The merge methods: one formula each, and the table that declares them."""

from mergesearch.methods.apply import apply
from mergesearch.methods.declare import REQUIRED, Method, Parameter, Scalar
from mergesearch.methods.inputs import Formula, Inputs
from mergesearch.methods.table import METHODS

__all__ = [
    "METHODS",
    "REQUIRED",
    "Formula",
    "Inputs",
    "Method",
    "Parameter",
    "Scalar",
    "apply",
]
