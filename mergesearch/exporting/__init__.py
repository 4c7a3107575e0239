"""Checkpoints, GGUF files, adapters; recipes, model cards, and the hub."""

from mergesearch.exporting.checkpoint import RECIPE_FILE, write_checkpoint
from mergesearch.exporting.export import export
from mergesearch.exporting.formats import EXPORTS, ExportFormat, export_format
from mergesearch.exporting.hub import Upload, push
from mergesearch.exporting.lora import extract_lora
from mergesearch.exporting.selected import ExportOptions, Selected
from mergesearch.exporting.stages import write_result

__all__ = [
    "EXPORTS",
    "RECIPE_FILE",
    "ExportFormat",
    "ExportOptions",
    "Selected",
    "Upload",
    "export",
    "export_format",
    "extract_lora",
    "push",
    "write_checkpoint",
    "write_result",
]
