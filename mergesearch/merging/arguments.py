"""A method's arguments for one tensor: scopes, filters and gradients resolved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergesearch.errors import RecipeError
from mergesearch.methods import REQUIRED, Parameter
from mergesearch.recipe import Recipe, Slice, Source, evaluate
from mergesearch.recipe.model import Parameters


@dataclass(frozen=True)
class Target:
    """One tensor of the merged model, for which a recipe's settings are looked up."""

    part: Slice
    name: str
    #: Of its layer in the slice, from 0 to 1.
    depth: float


def arguments_of(
    recipe: Recipe, target: Target, models: Sequence[tuple[Source, str]]
) -> dict[str, Any]:
    """Resolve the method's arguments for a tensor.

    Args:
        recipe: gives the method and the outermost settings.
        target: the tensor.
        models: of each model that is merged its source, and its name for the tensor.

    Returns:
        Keyword arguments of the method's function: a list with a value for each model where the
        parameter is of each model, and else one value.

    Raises:
        RecipeError: a required parameter is missing, or the method cannot do with the values.
    """
    arguments = {
        parameter.argument: _per_model(recipe, target, parameter, models)
        if parameter.per_model
        else _shared(recipe, target, parameter)
        for parameter in recipe.method.parameters
    }
    try:
        recipe.method.check(arguments)
    except ValueError as error:
        raise RecipeError(f"{recipe.merge_method}: {error} (for {target.name})") from None
    return arguments


def _per_model(
    recipe: Recipe, target: Target, parameter: Parameter, models: Sequence[tuple[Source, str]]
) -> list[Any]:
    """Find a value for each model: the source's, else the slice's or the recipe's."""
    values = []
    for source, name in models:
        scopes = (source.parameters, target.part.parameters, recipe.parameters)
        value = _lookup(scopes, parameter, name, target.depth)
        if value is REQUIRED:
            raise RecipeError(
                f"{recipe.merge_method} needs a {parameter.name} for every model, "
                f"but {source.model} has none for {target.name}"
            )
        values.append(value)
    return values


def _shared(recipe: Recipe, target: Target, parameter: Parameter) -> Any:
    """Find the one value for all models: the slice's, else the recipe's."""
    scopes = (target.part.parameters, recipe.parameters)
    value = _lookup(scopes, parameter, target.name, target.depth)
    if value is REQUIRED:
        raise RecipeError(
            f"{recipe.merge_method} needs a {parameter.name}, but {target.name} has none"
        )
    return value


def _lookup(scopes: Sequence[Parameters], parameter: Parameter, name: str, depth: float) -> Any:
    """Take the value of the first scope that has one for this tensor, or the default."""
    for scope in scopes:
        if parameter.name in scope:
            value = evaluate(scope[parameter.name], name, depth)
            if value is not None:
                # a gradient's values lie between those that were checked; 10.0 may mean 10
                return parameter.check(value)
    return parameter.default
