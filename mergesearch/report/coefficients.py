"""The coefficients of a recipe as tables: of a parent, by tensor group and layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergesearch.methods import Parameter
from mergesearch.recipe import Conditional, ModelRef, Recipe, Setting, Slice, evaluate
from mergesearch.recipe.model import Parameters

#: Parts of the names of tensors that lie in no layer.
_OUTSIDE = ("embed", "lm_head", "model.norm", "wte", "wpe", "ln_f")
#: The row of all tensors that no filter names.
OTHERS = "all else"


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The numbers that parents are multiplied by: a table for each, or one for all."""

    #: Of the rows: filters of tensors' names, and `OTHERS`.
    groups: tuple[str, ...]
    #: Columns: a layer of the merged model each, or where that is not known, an equal part.
    n_layers: int
    #: By the parent's name, or of a parameter for all parents its own, (groups, layers); NaN where
    #: a parent has no part in a layer.
    tables: Mapping[str, NDArray[np.float64]]
    #: Of what a parent's name stands for.
    parameter: str


def coefficients(
    recipe: Recipe, name_of: Callable[[ModelRef], str], like: Coefficients | None = None
) -> Coefficients | None:
    """Tabulate a recipe's weights, or what its method has in their place.

    Args:
        recipe: any.
        name_of: names its models.
        like: has the rows, and the columns of whole models, if not the recipe's own.

    Returns:
        None for a method without numbers that vary by tensor.
    """
    parameter = _main_parameter(recipe)
    if parameter is None:
        return None
    rows = like.groups if like else tuple(_groups(recipe, parameter))
    depths = [_depth(part, recipe, like) for part in recipe.slices]
    tables: dict[str, NDArray[np.float64]] = {}
    start, n_layers = 0, sum(depths)
    for part, depth in zip(recipe.slices, depths, strict=True):
        for label, scopes in _columns(recipe, part, parameter, name_of):
            table = tables.setdefault(label, np.full((len(rows), n_layers), math.nan))
            for i, group in enumerate(rows):
                for layer in range(depth):
                    at = layer / (depth - 1) if depth > 1 else 0.0
                    table[i, start + layer] = _value(scopes, parameter, group, at)
        start += depth
    return Coefficients(rows, n_layers, tables, parameter.name)


def spread(
    recipes: Sequence[Recipe], like: Coefficients, name_of: Callable[[ModelRef], str]
) -> dict[str, NDArray[np.float64]]:
    """Compute the standard deviation of each coefficient over recipes.

    Args:
        recipes: those without the parameter, or of another depth, are left out.
        like: has the rows, and the parents.
        name_of: names models.

    Returns:
        As `Coefficients.tables`; none where fewer than two recipes can be compared.
    """
    found = [coefficients(recipe, name_of, like) for recipe in recipes]
    alike = [
        c.tables
        for c in found
        if c and (c.n_layers, c.parameter) == (like.n_layers, like.parameter)
    ]
    result = {}
    for label in like.tables:
        tables = [of[label] for of in alike if label in of]
        if len(tables) > 1:
            result[label] = np.std(tables, axis=0)
    return result


def _groups(recipe: Recipe, parameter: Parameter) -> list[str]:
    """List the filters of a parameter, of which the finest, and the row of all else."""
    settings = _settings(recipe, parameter.name)
    filters = dict.fromkeys(name for setting in settings for name in _filters(setting))
    finest = [f for f in filters if not any(f != other and f in other for other in filters)]
    inside = [f for f in finest if not any(part in f for part in _OUTSIDE)]
    return [*inside, OTHERS]


def _main_parameter(recipe: Recipe) -> Parameter | None:
    """Choose the weight, or else the first number that varies by tensor."""
    candidates = [p for p in recipe.method.parameters if p.kind is float]
    by_name = {p.name: p for p in candidates}
    varying = [p for p in candidates if p.by_block]
    return by_name.get("weight") or next(iter(varying), None)


def _columns(
    recipe: Recipe, part: Slice, parameter: Parameter, name_of: Callable[[ModelRef], str]
) -> list[tuple[str, list[Parameters]]]:
    """List the tables that a slice has a part in, with the scopes of their values."""
    outer = [part.parameters, recipe.parameters]
    if not parameter.per_model:
        return [(parameter.name, outer)]
    base = recipe.base_of(part) if recipe.method.sets_base_apart else None
    sources = [source for source in part.sources if source.model != base]
    return [(name_of(s.model), [s.parameters, *outer]) for s in sources]


def _value(scopes: Sequence[Parameters], parameter: Parameter, group: str, depth: float) -> float:
    name = "" if group == OTHERS else group
    for scope in scopes:
        if parameter.name in scope:
            value = evaluate(scope[parameter.name], name, depth)
            if value is not None:
                return float(value) if isinstance(value, int | float) else math.nan
    default = parameter.default
    return float(default) if isinstance(default, int | float) else math.nan


def _depth(part: Slice, recipe: Recipe, like: Coefficients | None) -> int:
    """Count a slice's layers; of whole models, the values of the longest gradient."""
    n_layers = part.sources[0].n_layers
    if n_layers is not None:
        return n_layers
    if like is not None:
        return like.n_layers
    lengths = [
        len(value)
        for setting in _all_settings(recipe)
        for value in _values(setting)
        if isinstance(value, tuple)
    ]
    return max(lengths, default=1)


def _settings(recipe: Recipe, name: str) -> list[Setting]:
    scopes: list[Parameters] = [recipe.parameters]
    for part in recipe.slices:
        scopes += [part.parameters, *(source.parameters for source in part.sources)]
    return [scope[name] for scope in scopes if name in scope]


def _all_settings(recipe: Recipe) -> list[Setting]:
    names = [p.name for p in recipe.method.parameters]
    return [setting for name in names for setting in _settings(recipe, name)]


def _cases(setting: Setting) -> list[Conditional]:
    if isinstance(setting, Conditional):
        return [setting]
    parts = setting if isinstance(setting, tuple) else ()
    return [part for part in parts if isinstance(part, Conditional)]


def _filters(setting: Setting) -> list[str]:
    return [case.filter for case in _cases(setting) if case.filter not in (None, "*")]


def _values(setting: Setting) -> list[Setting]:
    cases = _cases(setting)
    return [case.value for case in cases] if cases else [setting]
