"""The command that prints JSON schemas."""

from typing import Annotated, Literal

import typer


def schema(
    what: Annotated[
        Literal["space", "suite", "recipe"],
        typer.Argument(metavar="space|suite|recipe", help="The YAML that it describes."),
    ],
) -> None:
    """Print the JSON schema of a YAML, by which editors check and complete it."""
    import json

    match what:
        case "space":
            from mergesearch.space.json_schema import space_schema as schema_of
        case "suite":
            from mergesearch.tasks.json_schema import suite_schema as schema_of
        case "recipe":
            from mergesearch.recipe.json_schema import recipe_schema as schema_of
    typer.echo(json.dumps(schema_of(), indent=2, ensure_ascii=False))
