"""Baseline recipes: one model, the soup, plain task arithmetic."""

from collections.abc import Sequence

from mergesearch.recipe.model import Recipe, Slice, Source
from mergesearch.recipe.reference import ModelRef
from mergesearch.recipe.tokenizer import VocabularySource


def copy_of(model: ModelRef) -> Recipe:
    """Make the recipe of a model as it is.

    >>> from mergesearch.recipe import ModelRef, copy_of
    >>> copy_of(ModelRef.model_validate("models/one")).merge_method
    'passthrough'
    """
    return Recipe(merge_method="passthrough", slices=(Slice(sources=(Source(model=model),)),))


def soup_recipe(
    models: Sequence[ModelRef],
    tokenizer_source: VocabularySource | None = None,
    among: Sequence[ModelRef] = (),
) -> Recipe:
    """Make the recipe of the plain mean of models (arXiv:2203.05482).

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


def task_arithmetic_recipe(
    base: ModelRef,
    models: Sequence[ModelRef],
    scale: float,
    tokenizer_source: VocabularySource | None = None,
) -> Recipe:
    """Make the recipe of plain task arithmetic (arXiv:2212.04089).

    Args:
        base: the models' common ancestor.
        models: whose task vectors are added.
        scale: the coefficient of all of them.
        tokenizer_source: as the recipe's, for models whose vocabularies differ.
    """
    sources = tuple(Source(model=model, parameters={"weight": scale}) for model in models)
    return Recipe(
        merge_method="task_arithmetic",
        base_model=base,
        slices=(Slice(sources=sources),),
        tokenizer_source=tokenizer_source,
    )
