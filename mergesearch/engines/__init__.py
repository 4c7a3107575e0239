"""Engines, which answer requests with a model's weights, and the one on torch."""

from mergesearch.engines.base import (
    ENGINES,
    Capabilities,
    Cost,
    DifferentiableEngine,
    Engine,
    EngineFactory,
    Predictions,
    UnfitRequestError,
    differentiable,
    engine_of,
)

__all__ = [
    "ENGINES",
    "Capabilities",
    "Cost",
    "DifferentiableEngine",
    "Engine",
    "EngineFactory",
    "Predictions",
    "UnfitRequestError",
    "differentiable",
    "engine_of",
]
