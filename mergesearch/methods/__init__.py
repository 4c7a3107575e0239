"""The merge methods: one pure function each, and the table that declares them.

The table is the only owner of parameter names, ranges and defaults; recipes, the kernel, search
spaces and the tests all read it.
"""

from mergesearch.methods.dare import dare_linear, dare_ties
from mergesearch.methods.declare import REQUIRED, Method, Parameter, Scalar
from mergesearch.methods.linear import linear
from mergesearch.methods.passthrough import passthrough
from mergesearch.methods.slerp import slerp
from mergesearch.methods.task_arithmetic import task_arithmetic
from mergesearch.methods.ties import ties

__all__ = ["METHODS", "REQUIRED", "Method", "Parameter", "Scalar"]


def _weight(low: float, high: float) -> Parameter:
    return Parameter("weight", per_model=True, search=(low, high), by_block=True)


def _normalize(default: bool) -> Parameter:
    return Parameter("normalize", kind=bool, default=default)


_DENSITY = Parameter("density", per_model=True, default=1.0, above=0, high=1, search=(0.1, 1.0))
_LAMBDA = Parameter("lambda", default=1.0)
_RESCALE = Parameter("rescale", kind=bool, default=True, words=("density",))
_TRIM_RESCALE = Parameter("rescale", kind=bool, default=False)

METHODS = {
    "linear": Method(
        linear, (_weight(0, 1), _normalize(True)), base="unused", paper="arXiv:2203.05482"
    ),
    "slerp": Method(
        slerp,
        (Parameter("t", search=(0, 1), by_block=True),),
        base="required",
        n_models=(1, 1),
        paper="doi:10.1145/325334.325242",
    ),
    "task_arithmetic": Method(
        task_arithmetic,
        (_weight(0, 1.5), _LAMBDA, _normalize(False)),
        base="required",
        paper="arXiv:2212.04089",
    ),
    "ties": Method(
        ties,
        (_weight(0, 1.5), _DENSITY, _LAMBDA, _normalize(True), _TRIM_RESCALE),
        base="required",
        paper="arXiv:2306.01708",
    ),
    "dare_linear": Method(
        dare_linear,
        (_weight(0, 1.5), _DENSITY, _LAMBDA, _normalize(False), _RESCALE),
        base="required",
        random=True,
        paper="arXiv:2311.03099",
    ),
    "dare_ties": Method(
        dare_ties,
        (_weight(0, 1.5), _DENSITY, _LAMBDA, _normalize(False), _RESCALE),
        base="required",
        random=True,
        paper="arXiv:2311.03099",
    ),
    "passthrough": Method(
        passthrough,
        (Parameter("scale", per_model=True, default=None),),
        base="unused",
        n_models=(1, 1),
        paper="arXiv:2312.15166",
    ),
}
"""Every merge method by its name in YAML (mergekit's `merge_method`)."""
