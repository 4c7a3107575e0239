"""A model that was selected for export, and the settings of the formats."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mergesearch.recipe import ModelRef, Recipe

#: The dtypes of GGUF files, by the names that llama.cpp's converter gives them.
OutType = Literal["f16", "bf16", "q8_0"]


@dataclass(frozen=True)
class ExportOptions:
    """Settings of formats; each format reads its own."""

    #: The largest size of one weight file of a checkpoint.
    max_shard_bytes: int = 5 * 10**9
    #: Of the matrices of a GGUF file.
    outtype: OutType = "f16"
    #: Of each matrix of an adapter.
    rank: int = 32


@dataclass(frozen=True)
class Selected:
    """A recipe, and all that an export of it has to know."""

    recipe: Recipe
    options: ExportOptions = ExportOptions()
    #: The hash of the tensors that were scored; None where they never were.
    digest: str | None = None
    #: The model that an adapter is for; None is the recipe's own base.
    base: ModelRef | None = None
    #: Merge models whose weights are of different functions.
    allow_mismatch: bool = False
    #: Markdown that the card shows, e.g. a table of scores.
    notes: str = ""
    #: Further metadata of the card; see `model_card`.
    metadata: Mapping[str, Any] = field(default_factory=dict)
