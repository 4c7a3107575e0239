"""Checkpoints, recipes and model cards."""

from mergesearch.exporting.checkpoint import RECIPE_FILE, write_checkpoint
from mergesearch.exporting.export import export
from mergesearch.exporting.stages import write_result

__all__ = ["RECIPE_FILE", "export", "write_checkpoint", "write_result"]
