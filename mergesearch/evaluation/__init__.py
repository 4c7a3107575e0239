"""Tasks and an engine to scores, block by block."""

from mergesearch.evaluation.evaluator import DocumentStore, Evaluator

__all__ = ["DocumentStore", "Evaluator"]
