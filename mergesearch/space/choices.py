"""The choices of a space: merge methods, and what trials may take in their place."""

from collections.abc import Mapping
from typing import Any

from mergesearch.config import Config, parse, unknown
from mergesearch.errors import InputError
from mergesearch.methods import METHODS
from mergesearch.space.domains import Domain, method_domains
from mergesearch.space.learned import Learned
from mergesearch.space.lines import lines_domains, split
from mergesearch.space.stacking import Stacking

#: The order in which a greedy soup tries the parents.
GREEDY_SOUP = "greedy_soup"
#: Which layers of which parents follow one another.
STACKING = "stacking"
#: Coefficients that are learned by gradient.
LEARNED = "learned"

#: What a space says of a choice: of each parameter of a method, of stacks, or of what is learned.
Spec = Mapping[str, Domain] | Stacking | Learned

_CONFIGS: Mapping[str, type[Config]] = {STACKING: Stacking, LEARNED: Learned}


def default_methods(*, has_base: bool) -> dict[str, Any]:
    """Give the methods of a space that names none, as `make bench-methods` has them.

    Args:
        has_base: whether there are task vectors; else there are weights of a mean.
    """
    if not has_base:
        return {LEARNED: {"of": "linear"}, "linear": {}}
    return {
        LEARNED: {"of": "task_arithmetic"},
        "task_arithmetic": {},
        "breadcrumbs": {},
        "ties": {},
    }


def as_specs(methods: Any) -> Any:
    """Read and check every choice in the `methods` mapping of a space.

    Raises:
        ValueError: something in it is wrong.
    """
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError("methods must name at least one method, e.g. task_arithmetic: {}")
    return {name: _spec(name, spec) for name, spec in methods.items()}


def _spec(name: str, spec: Any) -> Any:
    if name in _CONFIGS:
        return _config(name, spec)
    if name == GREEDY_SOUP:
        if spec:
            raise ValueError(f"{GREEDY_SOUP} has no parameters, got {spec!r}")
        return {}
    if name not in METHODS:
        raise ValueError(unknown("method", name, [*METHODS, GREEDY_SOUP, *_CONFIGS]))
    if name == "passthrough":
        raise ValueError(f"{name} is searched as {STACKING}, e.g. {STACKING}: {{depth: [30, 40]}}")
    own, lines = split(spec)
    return method_domains(name, own) | lines_domains(name, METHODS[name], lines)


def _config(name: str, spec: Any) -> Config:
    cls = _CONFIGS[name]
    if isinstance(spec, cls):
        return spec
    try:
        return parse(cls, {} if spec is None else spec, name)
    except InputError as error:
        raise ValueError(str(error)) from None
