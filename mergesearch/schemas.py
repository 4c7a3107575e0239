"""JSON schemas of configuration models, which editors check YAML by."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from mergesearch.config import Config

Schema = dict[str, Any]

#: The version of JSON Schema that schemas are of.
DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL: Schema = {"type": "null"}

# YAML 1.1, which we read, has no number 1e-5 and takes yes for true; in YAML 1.2, as editors read
# it, the one is a number and the other a text. Models take both, so schemas do.
_NUMBER = r"^\s*[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_TRUTH = (
    "^([yYnNtTfF01]|[yY][eE][sS]|[nN][oO]|[oO][nN]|[oO][fF]{2}|[tT][rR][uU][eE]"
    "|[fF][aA][lL][sS][eE])$"
)
_COMMENTED = re.compile(r"^((?:    #: .*\n)+)    (\w+):", re.MULTILINE)


def schema_of(models: Sequence[type[Config]]) -> Schema:
    """Describe configuration models, and all that they are made of, each by its name."""
    _, schema = models_json_schema(
        [(model, "validation") for model in models], schema_generator=_OfYaml
    )
    definitions: Schema = schema["$defs"]
    return definitions


def number(*, whole: bool = False, **bounds: float) -> Schema:
    """Describe a number, or its text.

    Args:
        whole: without a fraction.
        bounds: JSON Schema's minimum, maximum and exclusiveMinimum.
    """
    return {"type": ["integer" if whole else "number", "string"], "pattern": _NUMBER, **bounds}


def truth() -> Schema:
    """Describe true or false, in any of YAML's spellings."""
    kinds = ["boolean", "string", "integer"]
    return {"type": kinds, "pattern": _TRUTH, "minimum": 0, "maximum": 1}


class _OfYaml(GenerateJsonSchema):
    """Numbers and truth values as YAML has them; keys described by comments."""

    def float_schema(self, schema: Any) -> Schema:
        return number(**_bounds(super().float_schema(schema)))

    def int_schema(self, schema: Any) -> Schema:
        return number(whole=True, **_bounds(super().int_schema(schema)))

    def bool_schema(self, schema: Any) -> Schema:
        return truth()

    def tagged_union_schema(self, schema: Any) -> Schema:
        """Describe what is told apart by its look: a text may be several of them."""
        made = super().tagged_union_schema(schema)
        return {"anyOf": made["oneOf"]} if "oneOf" in made else made

    def model_schema(self, schema: Any) -> Schema:
        made = super().model_schema(schema)
        if "description" in made:  # the docstring without its examples
            made["description"] = made["description"].partition("\n\n>>> ")[0]
        for key, text in _comments(schema["cls"]).items():
            made["properties"][key]["description"] = text
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _bounds(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "type"}


def _comments(model: type) -> dict[str, str]:
    """Read the `#:` comments above a model's fields, by the fields' names."""
    try:
        source = inspect.getsource(model)
    except OSError:  # installed without its source
        return {}
    comments = {
        name: " ".join(line.removeprefix("    #: ") for line in text.splitlines())
        for text, name in _COMMENTED.findall(source)
    }
    fields = getattr(model, "model_fields", {})
    return {name: text for name, text in comments.items() if name in fields}
