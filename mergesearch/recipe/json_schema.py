"""The JSON schema of a recipe's YAML."""

from typing import Any

from mergesearch.methods import METHODS
from mergesearch.recipe.model import IGNORED, Recipe
from mergesearch.schemas import DIALECT, NULL, Schema, schema_of

_SCALAR: Schema = {"type": ["boolean", "number", "string"]}
_VALUES: Schema = {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1}]}


def recipe_schema() -> Schema:
    """Describe the mergekit configs that `load_recipe` reads, by JSON Schema."""
    definitions = schema_of([Recipe])
    recipe, source = definitions.pop("Recipe"), definitions["Source"]
    definitions |= {"Setting": _setting(), "Parameters": _parameters()}
    for model in (recipe, source, definitions["Slice"]):
        model["properties"]["parameters"] = {"$ref": "#/$defs/Parameters"}
    keys = recipe["properties"]
    keys["merge_method"] = {"enum": [*METHODS]}
    keys["models"] = {"type": "array", "items": {"$ref": "#/$defs/Model"}, "minItems": 1}
    keys["modules"] = NULL
    recipe["required"] = ["merge_method"]
    recipe["oneOf"] = [_given("models"), _given("slices")]
    whole = {name: of for name, of in source["properties"].items() if name != "layer_range"}
    definitions["Model"] = source | {"title": "Model", "properties": whole}
    source["required"] = [*source["required"], "layer_range"]
    for definition in (recipe, *definitions.values()):
        _allow_nulls(definition)
    return {"$schema": DIALECT, **recipe, "$defs": definitions}


def _given(key: str) -> Schema:
    """Require a key whose value is a list."""
    return {"required": [key], "properties": {key: {"type": "array"}}}


def _parameters() -> Schema:
    """Describe settings by the names that any method's parameters have."""
    names = dict.fromkeys(p.name for method in METHODS.values() for p in method.parameters)
    setting = {"$ref": "#/$defs/Setting"}
    return {
        "type": "object",
        "properties": dict.fromkeys([*names, *IGNORED], setting),
        "additionalProperties": False,
    }


def _setting() -> Schema:
    """Describe a value, a list of values over depth, or value/filter pairs."""
    conditional = {
        "type": "object",
        "properties": {"value": _VALUES, "filter": {"type": "string"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    _allow_nulls(conditional)
    pairs = {"type": "array", "items": conditional, "minItems": 1}
    return {"anyOf": [_VALUES, conditional, pairs]}


def _allow_nulls(schema: dict[str, Any]) -> None:
    """Take null for an optional key that is left out, as `load_recipe` does."""
    for key, value in schema.get("properties", {}).items():
        if key not in schema.get("required", ()) and NULL not in value.get("anyOf", [value]):
            schema["properties"][key] = {"anyOf": [value, NULL]}
