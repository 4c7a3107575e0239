"""Exports of the recipe alone, a file that mergekit runs."""

from pathlib import Path

from mergesearch.exporting import ExportFormat, Selected
from mergesearch.recipe import write_recipe


def _write(selected: Selected, out: Path) -> tuple[str, ...]:
    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(write_recipe(selected.recipe, out))
    return (f"{len(selected.recipe.models)} models, none of them copied",)


RECIPE_ONLY = ExportFormat(_write)
