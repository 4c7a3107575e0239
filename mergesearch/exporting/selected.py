"""A model that was selected for export, and the settings of the formats."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

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
    #: A table of scores in Markdown, for the card.
    scores: str = ""
    #: Further metadata of the card: what the model scored; see `model_card`.
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: What it scored in files beside the weights, by their paths.
    results: Mapping[str, str] = field(default_factory=dict)
    #: What is written in place of the model that was scored; empty where it is that model.
    stands_in: str = ""

    @property
    def notes(self) -> str:
        """The card's section of scores, which says first what they are of."""
        if not self.scores:
            return ""
        if self.stands_in:
            of = f"Of the full merge, and not of {self.stands_in}, which was not scored:\n\n"
            return f"\n## Scores of the full merge\n\n{of}{self.scores}\n"
        return f"\n## Scores\n\n{self.scores}\n"

    def approximated(self, by: str) -> Self:
        """Return the same for a file that is not quite the model that was scored.

        Scores of the one are no metadata of the other.

        Args:
            by: what is written instead, for the card.
        """
        return replace(self, metadata={}, results={}, stands_in=by)

    def write_results(self, folder: Path) -> None:
        """Write the files of scores into the model's folder."""
        for name, text in self.results.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
