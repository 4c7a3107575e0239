"""The JSON schema of a search space's YAML, which may be a genome file."""

import math

from mergesearch.methods import METHODS, Method, Parameter
from mergesearch.schemas import DIALECT, Schema, number, schema_of, truth
from mergesearch.space.choices import GREEDY_SOUP, LEARNED, STACKING
from mergesearch.space.genome import GENOME_METHODS, GenomeFile
from mergesearch.space.learned import Learned
from mergesearch.space.lines import LINES, scaled_parameter
from mergesearch.space.schema import SearchSpace
from mergesearch.space.settings import SAMPLERS
from mergesearch.space.stacking import Stacking

#: What says nothing of a method without parameters.
_NOTHING: Schema = {"type": ["null", "object", "array"], "maxProperties": 0, "maxItems": 0}


def _lines() -> Schema:
    """Describe what `lines` may say: a number or a range for alpha, and for beta."""
    names = ("alpha", "beta")
    return {
        "type": ["object", "null"],
        "properties": {name: _domain(Parameter(name)) for name in names},
        "additionalProperties": False,
    }


def space_schema() -> Schema:
    """Describe a `search_spaces/*.yaml` by JSON Schema."""
    definitions = schema_of([SearchSpace, GenomeFile, Stacking, Learned])
    definitions["SearchSpace"]["properties"]["methods"] = _methods()
    definitions["SearchSpace"]["required"].remove("methods")  # there are default ones
    definitions["Lines"] = _lines()
    definitions["SearchSettings"]["properties"]["sampler"]["enum"] = [*SAMPLERS]
    definitions["Genome"]["properties"]["merge_method"]["enum"] = [*GENOME_METHODS]
    return {
        "$schema": DIALECT,
        "title": "SearchSpace",
        "if": {"required": ["genome"]},
        "then": {"$ref": "#/$defs/GenomeFile"},
        "else": {"$ref": "#/$defs/SearchSpace"},
        "$defs": definitions,
    }


def _methods() -> Schema:
    """Describe a mapping from methods to what their parameters may be."""
    merging = {name: _method(METHODS[name]) for name in METHODS if name != "passthrough"}
    others: Schema = {GREEDY_SOUP: _NOTHING}
    others |= {
        name: {"$ref": f"#/$defs/{config.__name__}"}
        for name, config in ((STACKING, Stacking), (LEARNED, Learned))
    }
    return {
        "type": "object",
        "properties": merging | others,
        "additionalProperties": False,
        "minProperties": 1,
    }


def _method(method: Method) -> Schema:
    own = {p.name: _domain(p) for p in method.parameters}
    if scaled_parameter(method):
        own[LINES] = {"$ref": "#/$defs/Lines"}
    return {"type": ["object", "null"], "properties": own, "additionalProperties": False}


def _domain(parameter: Parameter) -> Schema:
    """One value, or a list of two or more: of two numbers a range, else a choice."""
    value = _value(parameter)
    return {"anyOf": [value, {"type": "array", "items": value, "minItems": 2}]}


def _value(parameter: Parameter) -> Schema:
    if parameter.kind is bool:
        value = truth()
    else:
        limits = {
            "minimum": parameter.low,
            "maximum": parameter.high,
            "exclusiveMinimum": parameter.above,
        }
        finite = {key: limit for key, limit in limits.items() if math.isfinite(limit)}
        value = number(whole=parameter.kind is int, **finite)
    return {"anyOf": [value, {"enum": [*parameter.words]}]} if parameter.words else value
