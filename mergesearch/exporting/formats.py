"""The formats that models are exported in: a file and a row each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.exporting.checkpoint import write_checkpoint
from mergesearch.exporting.gguf import write_gguf
from mergesearch.exporting.lora import write_lora
from mergesearch.exporting.selected import Selected
from mergesearch.plugins import Table


@dataclass(frozen=True)
class ExportFormat:
    """A format of exported models.

    >>> from mergesearch.exporting import ExportFormat
    >>> nothing = ExportFormat(lambda selected, out: (f"{out}: not written",))
    """

    #: From a model and a folder, which it makes whole or not at all, to lines for the user. Where
    #: what it writes is not the model that was scored, the card is that of `Selected.approximated`.
    write: Callable[[Selected, Path], tuple[str, ...]]


def _checkpoint(selected: Selected, out: Path) -> tuple[str, ...]:
    """Write a checkpoint that transformers loads."""
    write_checkpoint(
        selected.recipe,
        out,
        max_shard_bytes=selected.options.max_shard_bytes,
        expected_digest=selected.digest,
        notes=selected.notes,
        allow_mismatch=selected.allow_mismatch,
        metadata=selected.metadata,
    )
    selected.write_results(out)
    return ()


CHECKPOINT = "safetensors"
"""The format of checkpoints, which names no folder: `top-1` and not `top-1-safetensors`."""

EXPORTS = Table(
    "mergesearch.exports",
    ExportFormat,
    {
        CHECKPOINT: ExportFormat(_checkpoint),
        "gguf": ExportFormat(write_gguf),
        "lora": ExportFormat(write_lora),
    },
)
"""Every format by its name on the command line."""


def export_format(name: str) -> ExportFormat:
    """Return the format of a name.

    Raises:
        InputError: there is none, or a package's cannot be loaded.
    """
    if name not in EXPORTS:
        raise InputError(unknown("format", name, EXPORTS))
    return EXPORTS[name]
