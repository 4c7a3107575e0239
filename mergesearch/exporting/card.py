"""The model card of a merged model."""

from collections.abc import Sequence
from pathlib import Path

from mergesearch.recipe import ModelRef, Recipe


def model_card(
    recipe: Recipe, recipe_yaml: str, notes: str = "", models: Sequence[ModelRef] | None = None
) -> str:
    """Write the card in Markdown: metadata of the hub, parents, method and recipe.

    Args:
        recipe: the merged recipe.
        recipe_yaml: the recipe as it lies beside the card.
        notes: a further section, e.g. a table of scores.
        models: those that it is made of, where the recipe's are merges themselves.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="transformers",
        base_model=[_name(ref) for ref in models or recipe.models],
        tags=["merge", "mergesearch", recipe.merge_method],
    )
    listed = "\n".join(f"- `{_name(ref)}`" for ref in models or recipe.models)
    return f"""---
{data.to_yaml()}
---

# A merge by {recipe.merge_method.replace("_", " ")}

Made with mergesearch, without training, from

{listed}

by the method of {recipe.method.source}.
{notes}
## Recipe

{_runners(recipe, "mergekit-multi" if models else "mergekit-yaml")}:

```yaml
{recipe_yaml}```
"""


def _runners(recipe: Recipe, theirs: str) -> str:
    """Say what merges the recipe again."""
    if recipe.method.in_mergekit:
        return f"`mergesearch merge` and `{theirs}` both run it"
    return "`mergesearch merge` runs it; mergekit has no such method"


def _name(ref: ModelRef) -> str:
    """Name a model as readers call it: a local path by its last part."""
    names = [
        Path(part.path).name if part.is_local else str(part)
        for part in (ref.model, ref.lora)
        if part
    ]
    return "+".join(names)
