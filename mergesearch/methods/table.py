"""The table of merge methods: the only owner of parameter names, ranges and defaults.

Recipes, the kernel, search spaces, the README's tables and the tests all read it.
"""

from mergesearch.methods.checks import check_epsilon, check_sum
from mergesearch.methods.declare import Method, Parameter
from mergesearch.plugins import Table


def _weight(low: float, high: float) -> Parameter:
    return Parameter("weight", per_model=True, search=(low, high), by_block=True, shared=True)


def _flag(name: str, default: bool) -> Parameter:
    return Parameter(name, kind=bool, default=default)


def _density(low: float, high: float) -> Parameter:
    return Parameter("density", per_model=True, default=1.0, above=0, high=1, search=(low, high))


def _position(name: str, *, by_block: bool) -> Parameter:
    return Parameter(name, low=0, high=1, search=(0, 1), by_block=by_block)


# Weights scale a sum of deltas by themselves; where they are normalized, only lambda does.
_LAMBDA = Parameter("lambda", default=1.0, shared=True)
_EXTRAPOLATION = Parameter("lambda", default=1.0, search=(0.5, 2.0), shared=True)
# TSV-M's and Iso's best scales lie about 1 in their papers, and deltas that are not averaged may
# want less.
_SCALE = Parameter("lambda", default=1.0, search=(0.1, 2.0), by_block=True, shared=True)
_GAMMA = Parameter("gamma", per_model=True, default=0.01, low=0, high=1, search=(0.0, 0.1))
# Ranges whose sum and difference are always probabilities.
_EPSILON = Parameter("epsilon", per_model=True, default=0.15, low=0, high=1, search=(0.01, 0.19))
_RESCALE = Parameter("rescale", kind=bool, default=True, words=("density",))
_CHANGED = Parameter("epsilon", default=1e-5, above=0)

_ROWS = {
    "linear": Method(
        ".linear:linear",
        (_weight(0, 1), _flag("normalize", True)),
        base="unused",
        source="arXiv:2203.05482",
        check=check_sum,
    ),
    "slerp": Method(
        ".slerp:slerp",
        (Parameter("t", search=(0, 1), by_block=True),),
        base="first",
        n_models=(1, 1),
        source="doi:10.1145/325334.325242",
    ),
    "nuslerp": Method(
        ".nuslerp:nuslerp",
        (_weight(0, 1), _flag("nuslerp_row_wise", False), _flag("nuslerp_flatten", True)),
        base="optional",
        n_models=(2, 2),
        source="mergekit",
    ),
    "multislerp": Method(
        ".multislerp:multislerp",
        (
            _weight(0, 1),
            _flag("normalize_weights", True),
            Parameter("eps", default=1e-8, above=0),
        ),
        base="optional",
        source="mergekit",
        check=check_sum,
    ),
    "karcher": Method(
        ".multislerp:karcher",
        (
            Parameter("max_iter", kind=int, default=10, low=0, high=1000),
            Parameter("tol", default=1e-5, above=0),
        ),
        base="unused",
        source="arXiv:2603.04972",
    ),
    "task_arithmetic": Method(
        ".task_arithmetic:task_arithmetic",
        (_weight(0, 1.5), _LAMBDA, _flag("normalize", False)),
        base="required",
        source="arXiv:2212.04089",
    ),
    "ties": Method(
        ".ties:ties",
        (
            _weight(0, 1.5),
            _density(0.1, 1),
            _EXTRAPOLATION,
            _flag("normalize", True),
            _flag("rescale", False),
        ),
        base="required",
        source="arXiv:2306.01708",
    ),
    "dare_linear": Method(
        ".dare:dare_linear",
        (_weight(0, 1.5), _density(0.1, 1), _LAMBDA, _flag("normalize", False), _RESCALE),
        base="required",
        random=True,
        source="arXiv:2311.03099",
    ),
    "dare_ties": Method(
        ".dare:dare_ties",
        (_weight(0, 1.5), _density(0.1, 1), _LAMBDA, _flag("normalize", False), _RESCALE),
        base="required",
        random=True,
        source="arXiv:2311.03099",
    ),
    "della": Method(
        ".della:della",
        (
            _weight(0, 1.5),
            _density(0.2, 0.8),
            _EPSILON,
            _EXTRAPOLATION,
            _flag("normalize", True),
            _RESCALE,
        ),
        base="required",
        random=True,
        source="arXiv:2406.11617",
        whole="places",
        check=check_epsilon,
    ),
    "della_linear": Method(
        ".della:della_linear",
        (
            _weight(0, 1.5),
            _density(0.2, 0.8),
            _EPSILON,
            _LAMBDA,
            _flag("normalize", False),
            _RESCALE,
        ),
        base="required",
        random=True,
        source="arXiv:2406.11617",
        whole="places",
        check=check_epsilon,
    ),
    "breadcrumbs": Method(
        ".breadcrumbs:breadcrumbs",
        (
            _weight(0, 1.5),
            _density(0.1, 1),
            _GAMMA,
            _LAMBDA,
            _flag("normalize", False),
            _flag("rescale", False),
        ),
        base="required",
        source="arXiv:2312.06795",
    ),
    "breadcrumbs_ties": Method(
        ".breadcrumbs:breadcrumbs_ties",
        (
            _weight(0, 1.5),
            _density(0.1, 1),
            _GAMMA,
            _LAMBDA,
            _flag("normalize", False),
            _flag("rescale", False),
        ),
        base="required",
        source="arXiv:2312.06795",
    ),
    "sce": Method(
        ".sce:sce",
        (Parameter("select_topk", default=1.0, above=0, high=1, search=(0.1, 1.0)),),
        base="required",
        source="arXiv:2408.07990",
    ),
    "model_stock": Method(
        ".model_stock:model_stock",
        (Parameter("filter_wise", kind=bool, default=False, choices=(False, True)),),
        base="required",
        n_models=(2, float("inf")),
        source="arXiv:2403.19522",
    ),
    "nearswap": Method(
        ".nearswap:nearswap",
        (Parameter("t", low=0, search=(0.0, 0.01), by_block=True),),
        base="required",
        n_models=(1, 1),
        source="mergekit",
    ),
    "arcee_fusion": Method(
        ".arcee_fusion:arcee_fusion",
        (),
        base="required",
        n_models=(1, 1),
        source="mergekit",
        whole="everything",
    ),
    "ram": Method(".ram:ram", (_CHANGED,), base="required", source="arXiv:2601.13572"),
    "ramplus_tl": Method(
        ".ram:ramplus_tl",
        (
            Parameter("r", default=0.1, search=(0.0, 1.0)),
            Parameter("alpha", default=0.2, low=0, search=(0.0, 1.0)),
            _CHANGED,
        ),
        base="required",
        source="arXiv:2601.13572",
    ),
    "passthrough": Method(
        ".passthrough:passthrough",
        (Parameter("scale", per_model=True, default=None),),
        base="unused",
        n_models=(1, 1),
        source="arXiv:2312.15166",
    ),
    "magmax": Method(
        ".magmax:magmax",
        (_SCALE,),
        base="required",
        source="arXiv:2407.06322",
        in_mergekit=False,
    ),
    "tsv_m": Method(
        ".subspace:tsv_m",
        (_SCALE,),
        base="required",
        source="arXiv:2412.00081",
        whole="matrices",
        in_mergekit=False,
    ),
    "iso_c": Method(
        ".subspace:iso_c",
        (_SCALE,),
        base="required",
        source="arXiv:2502.04959",
        whole="matrices",
        in_mergekit=False,
    ),
    "iso_cts": Method(
        ".subspace:iso_cts",
        (_SCALE, Parameter("common", default=0.8, above=0, high=1)),
        base="required",
        source="arXiv:2502.04959",
        whole="matrices",
        in_mergekit=False,
    ),
    "crossover": Method(
        ".slerp:crossover",
        (_position("t", by_block=False), _position("split", by_block=False)),
        base="first",
        n_models=(1, 1),
        source="arXiv:2508.16204",
        in_mergekit=False,
    ),
}

METHODS: Table[Method] = Table("mergesearch.methods", Method, _ROWS)
"""Every merge method by its name in YAML (mergekit's `merge_method`)."""
