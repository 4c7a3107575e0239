"""The JSON schemas as the terminal prints them."""

import json
from typing import Literal

import typer


def show_schema(what: Literal["space", "suite", "recipe"]) -> None:
    """Print the JSON schema of a YAML."""
    match what:
        case "space":
            from mergesearch.space.json_schema import space_schema as schema_of
        case "suite":
            from mergesearch.tasks.json_schema import suite_schema as schema_of
        case "recipe":
            from mergesearch.recipe.json_schema import recipe_schema as schema_of
    typer.echo(json.dumps(schema_of(), indent=2, ensure_ascii=False))
