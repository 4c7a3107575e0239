"""Checkpoints, recipes and model cards."""

from mergesearch.exporting.checkpoint import RECIPE_FILE, write_checkpoint
from mergesearch.exporting.export import export

__all__ = ["RECIPE_FILE", "export", "write_checkpoint"]
