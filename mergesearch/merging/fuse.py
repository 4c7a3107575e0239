"""Formulas compiled into one pass over memory, where that pays."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods import Formula
from mergesearch.methods.executor import Call
from mergesearch.methods.formula import plain, widened

_log = logging.getLogger(__name__)

#: Blocks smaller than this are done before a compiled function has been entered.
_SMALLEST = 32_768
#: A processor's compiler takes seconds for each formula; models with fewer entries than this
#: (0.1 s a candidate without it) do not give them back.
_WORTH_IT = 64_000_000

#: Compiled or not, a formula gives the same bits: no multiply-add in one rounding, division as
#: IEEE 754 has it. The wrapper in C++ lets other threads run, and each thread takes one job.
_OPTIONS = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "cpp_wrapper": True,
    "cpp.threads": 1,
}


# Newer versions of torch count what a function was compiled for by function, and not by code.
_ISOLATED: dict[str, Any] = (
    {"isolate_recompiles": True}
    if "isolate_recompiles" in signature(torch.compile).parameters
    else {}
)


def call_for(device: torch.device, n_entries: int) -> Call:
    """Choose the call of formulas for candidates of so many entries.

    On a device every formula is compiled, so that it reads each input once. On a processor only
    the heavy ones are, and only where models are large.
    """
    if device.type == "cuda":
        return partial(_fused, at_least=0, all_of_them=True)
    if n_entries >= _WORTH_IT:
        return partial(_fused, at_least=_SMALLEST, all_of_them=False)
    return plain


def _fused(
    formula: Formula,
    base: Tensor | None,
    models: Sequence[Tensor],
    constants: Mapping[str, Any],
    *,
    at_least: int,
    all_of_them: bool,
) -> Any:
    """Call a compiled function, which gives the bits of `plain`.

    Small blocks, formulas that are not heavy and what cannot be compiled are called as they stand.
    """
    if models[0].numel() < at_least or not (formula.heavy or all_of_them):
        return plain(formula, base, models, constants)
    flags = tuple(v for v in constants.values() if callable(v) or isinstance(v, bool))
    return _fusion(formula.function, models[0].dtype, len(models), flags)(base, models, constants)


class _Fusion:
    """A function of float32 tensors, compiled together with their conversion."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._plain: Callable[..., Any] = partial(widened, function)
        self._compiled: Callable[..., Any] | None = torch.compile(
            self._plain, dynamic=True, fullgraph=True, options=_known_options(), **_ISOLATED
        )

    def __call__(
        self, base: Tensor | None, models: Sequence[Tensor], constants: Mapping[str, Any]
    ) -> Any:
        if self._compiled is not None:
            try:
                return self._compiled(base, models, constants)
            except Exception as error:
                # No compiler, or one that torch does not get on with: what is wrong with the
                # tensors themselves is raised again below.
                self._compiled = None
                reason = str(error).strip().splitlines()[0]
                _log.warning("merging runs uncompiled, and slower: %s", reason)
        return self._plain(base, models, constants)


@cache
def _fusion(function: Callable[..., Any], *kind: Any) -> _Fusion:
    """Compile a function once for each kind of constants: torch limits recompiling."""
    return _Fusion(function)


def _known_options() -> dict[str, Any]:
    """Options that this version of torch has."""
    known = torch._inductor.list_options()
    return {name: value for name, value in _OPTIONS.items() if name in known}
