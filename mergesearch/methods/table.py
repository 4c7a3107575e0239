"""The table of merge methods, which owns parameter names, ranges and defaults.

Recipes, the kernel, search spaces, the README's tables and the tests all read it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mergesearch.methods.checks import any_arguments, check_epsilon, check_sum, check_weights
from mergesearch.methods.declare import Method, Parameter, Sparsified
from mergesearch.plugins import Table


def _weight(low: float, high: float) -> Parameter:
    return Parameter(
        "weight",
        per_model=True,
        search=(low, high),
        by_block=True,
        shared=True,
        differentiable=True,
    )


def _flag(name: str, default: bool) -> Parameter:
    return Parameter(name, kind=bool, default=default)


def _density(low: float, high: float) -> Parameter:
    return Parameter("density", per_model=True, default=1.0, above=0, high=1, search=(low, high))


def _position(name: str, *, by_block: bool) -> Parameter:
    return Parameter(name, low=0, high=1, search=(0, 1), by_block=by_block)


# Weights scale a sum of deltas by themselves; where they are normalized, only lambda does.
_LAMBDA = Parameter("lambda", default=1.0, shared=True, differentiable=True)
_EXTRAPOLATION = replace(_LAMBDA, search=(0.5, 2.0))
# TSV-M's and Iso's best scales lie about 1 in their papers, and deltas that are not averaged may
# want less.
_SCALE = replace(_LAMBDA, search=(0.1, 2.0), by_block=True)
_GAMMA = Parameter("gamma", per_model=True, default=0.01, low=0, high=1, search=(0.0, 0.1))
# Ranges whose sum and difference are always probabilities.
_EPSILON = Parameter("epsilon", per_model=True, default=0.15, low=0, high=1, search=(0.01, 0.19))
_CHANGED = Parameter("epsilon", default=1e-5, above=0)
_DENSITY = _density(0.1, 1)
# All models alike unless a recipe says otherwise; its derivative goes through a decomposition.
_SHARE = replace(_weight(0, 1), default=1.0, low=0, differentiable=False)
# Where each candidate's own would be a decomposition of each matrix.
_EQUAL = replace(_SHARE, search=None)
_RIDGE = Parameter("ridge", default=0.1, low=0, search=(0.01, 1.0))
_SHRINKAGE = Parameter("alpha", default=0.9, low=0, high=1, search=(0.1, 1.0))
_ANCHOR = Parameter("anchor", default=1.0, search=(0.5, 2.0))
_KEPT_AS_IT_IS = _flag("rescale", False)
# What chance drops is made up for, unless a recipe says otherwise.
_MADE_UP_FOR = Parameter("rescale", kind=bool, default=True, words=("density",))


@dataclass(frozen=True)
class _Rule:
    """A keep-rule, and what methods that sparsify by it have in common."""

    keep: str
    source: str
    density: Parameter = _DENSITY
    #: Its parameters beside the density.
    own: tuple[Parameter, ...] = ()
    rescale: Parameter = _KEPT_AS_IT_IS
    random: bool = False
    whole: Literal["nothing", "ranks"] = "nothing"
    check: Callable[[Mapping[str, Any]], None] = any_arguments


_TOP_K = _Rule(".ties:TOP_K", "arXiv:2306.01708")
_DARE = _Rule(".dare:DARE", "arXiv:2311.03099", rescale=_MADE_UP_FOR, random=True)
_DELLA = _Rule(
    ".della:DELLA",
    "arXiv:2406.11617",
    _density(0.2, 0.8),
    (_EPSILON,),
    _MADE_UP_FOR,
    random=True,
    whole="ranks",
    check=check_epsilon,
)
_BREADCRUMBS = _Rule(".breadcrumbs:BREADCRUMBS", "arXiv:2312.06795", own=(_GAMMA,))


def _sparsified(
    rule: _Rule, *, elect: bool, lambda_: Parameter = _LAMBDA, normalize: bool = False
) -> Method:
    """Row of a method that keeps a part of each task vector, and adds or elects signs."""
    return Method(
        Sparsified(rule.keep, elect),
        (
            _weight(0, 1.5),
            rule.density,
            *rule.own,
            lambda_,
            _flag("normalize", normalize),
            rule.rescale,
        ),
        base="required",
        source=rule.source,
        random=rule.random,
        whole=rule.whole,
        check=rule.check,
    )


def _core(name: str, *parameters: Parameter) -> Method:
    """Row of a method in core space."""
    return Method(
        f".core_space:{name}",
        parameters,
        base="required",
        source="arXiv:2509.17786",
        whole="matrices",
        in_mergekit=False,
        needs_adapters=True,
    )


def _regression(
    name: str,
    source: str,
    *parameters: Parameter,
    base: Literal["required", "unused"] = "required",
    **more: Any,
) -> Method:
    """Row of a method that solves for matrices by inputs, or what stands for them."""
    return Method(
        f".regression:{name}",
        parameters,
        base=base,
        source=source,
        whole="matrices",
        squares=True,
        in_mergekit=False,
        **more,
    )


def _regmean(name: str, source: str, statistic: str) -> Method:
    """Row of RegMean on some Gram matrices."""
    return _regression(
        name,
        source,
        _EQUAL,
        _SHRINKAGE,
        base="unused",
        check=check_weights,
        statistics=(statistic,),
    )


_ROWS = {
    "linear": Method(
        ".linear:linear",
        (_weight(0, 1), _flag("normalize", True)),
        base="unused",
        source="arXiv:2203.05482",
        check=check_sum,
        combination=True,
    ),
    "slerp": Method(
        ".slerp:slerp",
        (Parameter("t", search=(0, 1), by_block=True, differentiable=True),),
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
            # by floats alone, for the same bits everywhere
            replace(_weight(0, 1), differentiable=False),
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
        combination=True,
    ),
    #                      keep rule, signs and what differs between the twins
    "ties": _sparsified(_TOP_K, elect=True, lambda_=_EXTRAPOLATION, normalize=True),
    "dare_linear": _sparsified(_DARE, elect=False),
    "dare_ties": _sparsified(_DARE, elect=True),
    "della": _sparsified(_DELLA, elect=True, lambda_=_EXTRAPOLATION, normalize=True),
    "della_linear": _sparsified(_DELLA, elect=False),
    "breadcrumbs": _sparsified(_BREADCRUMBS, elect=False),
    "breadcrumbs_ties": _sparsified(_BREADCRUMBS, elect=True),
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
        (Parameter("t", low=0, search=(0.0, 0.01), by_block=True, differentiable=True),),
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
        (Parameter("scale", per_model=True, default=None, differentiable=True),),
        base="unused",
        n_models=(1, 1),
        source="arXiv:2312.15166",
        combination=True,
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
    "consensus_ta": Method(
        ".consensus:consensus_ta",
        (
            Parameter("mask_lambda", per_model=True, default=0.4, low=0, search=(0.2, 0.6)),
            Parameter("k", kind=int, default=2, low=0, choices=(1, 2)),
            _SCALE,
        ),
        base="required",
        source="arXiv:2405.07813",
        in_mergekit=False,
    ),
    "pcb": Method(
        ".pcb:pcb",
        (replace(_density(0.05, 0.5), default=0.2), _SCALE),
        base="required",
        source="arXiv:2410.02396",
        in_mergekit=False,
    ),
    "localize_and_stitch": Method(
        ".localize:localize_and_stitch",
        (replace(_density(0.01, 0.5), default=0.05), _SCALE),
        base="required",
        source="arXiv:2408.13656",
        in_mergekit=False,
    ),
    "core_tsv_m": _core("core_tsv_m", _SCALE),
    "core_iso_c": _core("core_iso_c", _SCALE),
    "core_ties": _core("core_ties", _DENSITY, _SCALE),
    "crossover": Method(
        ".slerp:crossover",
        (
            replace(_position("t", by_block=False), differentiable=True),
            _position("split", by_block=False),
        ),
        base="first",
        n_models=(1, 1),
        source="arXiv:2508.16204",
        in_mergekit=False,
    ),
    "wudi": _regression("wudi", "arXiv:2503.08099", _SCALE, _RIDGE),
    "bmm": _regression("bmm", "arXiv:2605.12843", _SHARE, _RIDGE, _ANCHOR),
    "bmm_data": _regression(
        "bmm_data", "arXiv:2605.12843", _SHARE, _RIDGE, _ANCHOR, statistics=("gram",)
    ),
    "regmean": _regmean("regmean", "arXiv:2212.09849", "gram"),
    "regmean_pp": _regmean("regmean_pp", "arXiv:2508.03121", "merged gram"),
    "fisher": Method(
        ".fisher:fisher",
        (_SHARE,),
        base="unused",
        source="arXiv:2111.09832",
        in_mergekit=False,
        check=check_weights,
        statistics=("fisher",),
    ),
}

METHODS: Table[Method] = Table("mergesearch.methods", Method, _ROWS)
"""Every merge method by its name in YAML (mergekit's `merge_method`)."""
