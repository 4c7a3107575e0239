"""Engines, which answer requests with a model's weights, and the one on torch."""

from mergesearch.engines.base import (
    ENGINES,
    Capabilities,
    Cost,
    DifferentiableEngine,
    Engine,
    EngineFactory,
    UnfitRequestError,
    engine_of,
)

__all__ = [
    "ENGINES",
    "Capabilities",
    "Cost",
    "DifferentiableEngine",
    "Engine",
    "EngineFactory",
    "UnfitRequestError",
    "engine_of",
]
