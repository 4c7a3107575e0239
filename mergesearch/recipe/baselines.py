"""Recipes that every winner is compared with."""

from collections.abc import Sequence

from mergesearch.recipe.model import Recipe, Slice, Source, TokenizerSource
from mergesearch.recipe.reference import ModelRef


def soup_recipe(
    models: Sequence[ModelRef],
    tokenizer_source: TokenizerSource | None = None,
    among: Sequence[ModelRef] = (),
) -> Recipe:
    """The plain mean of models (arXiv:2203.05482).

    Args:
        models: what goes in.
        tokenizer_source: as the recipe's, for models whose vocabularies differ.
        among: with it, every model that the vocabulary depends on, the base first. Those that do
            not go in have weight 0, so that all soups of these models have one vocabulary.
    """
    if tokenizer_source is None:
        among = models
    sources = tuple(
        Source(model=model, parameters={"weight": float(model in models)}) for model in among
    )
    return Recipe(
        merge_method="linear",
        base_model=None if tokenizer_source is None else among[0],
        slices=(Slice(sources=sources),),
        tokenizer_source=tokenizer_source,
    )
