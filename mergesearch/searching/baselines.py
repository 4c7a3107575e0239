"""The soups of a space's models."""

from collections.abc import Sequence

from mergesearch.recipe import ModelRef, Recipe, soup_recipe
from mergesearch.space import SearchSpace


def soup_of(space: SearchSpace, models: Sequence[ModelRef]) -> Recipe:
    """The plain mean of some of a space's models, in the vocabulary of all its candidates."""
    return soup_recipe(models, space.tokenizer_source, space.models)
