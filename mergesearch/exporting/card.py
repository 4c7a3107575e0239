"""The model card of a merged model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergesearch.recipe import ModelRef, Recipe


def model_card(
    recipe: Recipe,
    recipe_yaml: str,
    notes: str = "",
    models: Sequence[ModelRef] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Write the card in Markdown: metadata of the hub, parents, method and recipe.

    Args:
        recipe: the merged recipe.
        recipe_yaml: the recipe as it lies beside the card.
        notes: a further section, e.g. a table of scores.
        models: those that it is made of, where the recipe's are merges themselves.
        metadata: fields of huggingface_hub's `ModelCardData`, beside or in place of ours.
    """
    from huggingface_hub import ModelCardData

    bases = hub_ids(models or recipe.models)
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "base_model": bases,
        "base_model_relation": "merge" if bases else None,
        "tags": ["merge", "mergesearch", recipe.merge_method],
    }
    data = ModelCardData(**{**fields, **(metadata or {})})
    listed = "\n".join(f"- `{model_name(ref)}`" for ref in models or recipe.models)
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


def hub_ids(models: Iterable[ModelRef]) -> list[str] | None:
    """List the hub ids among models, adapters included; None where all are local.

    The hub links to what a card calls its base models, and refuses a card whose are none.
    """
    parts = (part for ref in models for part in (ref.model, ref.lora) if part is not None)
    return list(dict.fromkeys(part.path for part in parts if not part.is_local)) or None


def _runners(recipe: Recipe, theirs: str) -> str:
    """Say what merges the recipe again."""
    if not (beyond := recipe.beyond_mergekit):
        return f"`mergesearch merge` and `{theirs}` both run it"
    return f"`mergesearch merge` runs it; mergekit {' and '.join(beyond)}"


def model_name(ref: ModelRef) -> str:
    """Name a model as readers call it: a local path by its last part."""
    names = [
        Path(part.path).name if part.is_local else str(part)
        for part in (ref.model, ref.lora)
        if part
    ]
    return "+".join(names)
