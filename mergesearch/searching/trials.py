"""The room's way to the attributes of trials, which `runs` owns."""

from mergesearch.runs.told import (
    BEFORE,
    DOCUMENTS,
    LABEL,
    RECIPE,
    REFINES,
    SECONDS,
    SHARE,
    TOTAL,
    record_of,
    scored_attributes,
)
from mergesearch.runs.trials import TrialRecord

__all__ = [
    "BEFORE",
    "DOCUMENTS",
    "LABEL",
    "RECIPE",
    "REFINES",
    "SECONDS",
    "SHARE",
    "TOTAL",
    "TrialRecord",
    "record_of",
    "scored_attributes",
]
