"""The JSON schema of a suite's YAML."""

from mergesearch.schemas import DIALECT, Schema, schema_of
from mergesearch.tasks.suite import Suite


def suite_schema() -> Schema:
    """Describe an `evals/*.yaml` by JSON Schema."""
    definitions = schema_of([Suite])
    return {"$schema": DIALECT, **definitions.pop("Suite"), "$defs": definitions}
