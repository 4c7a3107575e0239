"""The merge methods: one formula each, and the table that declares them.

The table needs no torch; what merges tensors is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from mergesearch.methods.declare import REQUIRED, Method, Parameter, Scalar, Sparsified
from mergesearch.methods.table import METHODS

if TYPE_CHECKING:
    from mergesearch.methods.factors import Factors
    from mergesearch.methods.formula import Formula
    from mergesearch.methods.inputs import Inputs
    from mergesearch.methods.sparse import KeepRule
    from mergesearch.methods.tensors import apply

__all__ = [
    "METHODS",
    "REQUIRED",
    "Factors",
    "Formula",
    "Inputs",
    "KeepRule",
    "Method",
    "Parameter",
    "Scalar",
    "Sparsified",
    "apply",
]

_LATE = {
    "Factors": "factors",
    "Formula": "formula",
    "Inputs": "inputs",
    "KeepRule": "sparse",
    "apply": "tensors",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
