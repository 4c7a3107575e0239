"""One model's scores as the terminal shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mergesearch.cli.cells import bounds
from mergesearch.files import write_whole
from mergesearch.scores import interval

if TYPE_CHECKING:
    from mergesearch.api import Evaluation

#: Columns of lm-eval's table that are set to the right.
_NUMBERS = {"Version", "n-shot", "Value", "Stderr"}


def show_evaluation(evaluation: Evaluation) -> None:
    """Show one model's scores as lm-eval prints them, with intervals and a total."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)  # a line of a file is as long as it is
    table = Table(box=box.MARKDOWN, header_style="bold")
    for name in ("Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"):
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    table.add_column("95 % interval", justify="right")
    for row in evaluation.rows:
        table.add_row(
            escape(f"{' ' * row.depth}- {row.alias}" if row.depth else row.alias),
            row.version,
            row.filter,
            row.n_shot,
            row.metric,
            {True: "↑", False: "↓", None: ""}[row.higher_is_better],
            f"{row.value:.4f}",
            "±",
            "N/A" if row.stderr is None else f"{row.stderr:.4f}",
            bounds(row.interval),
        )
    whole = interval(evaluation.scores)
    total = f"{evaluation.scores.total:.4f}"
    table.add_row("total", *[""] * 3, "weighted mean", "↑", total, "", "", bounds(whole))
    with console.capture() as drawn:
        console.print(table)
    print(drawn.get().strip(" \n"))  # without rich's empty lines above and below


def write_results(path: Path, evaluation: Evaluation) -> None:
    """Write one model's scores as lm-eval writes its results."""
    write_whole(path, json.dumps(evaluation.results, indent=2) + "\n")
