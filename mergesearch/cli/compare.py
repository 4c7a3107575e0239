"""The command `compare`: parents side by side, before a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mergesearch.cli.options import AllowMismatch, BatchSize, Device, MemoryBudget, SpaceFile
from mergesearch.logs import quiet_optuna

if TYPE_CHECKING:
    from mergesearch.diagnosis import Diagnosis


def compare(
    space: SpaceFile,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="RUN", help="Score the parents as well, and keep all in a run folder."
        ),
    ] = None,
    form: Annotated[
        Literal["json", "markdown"] | None,
        typer.Option("--format", metavar="F", help="json or markdown, to write it in."),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    memory_budget: MemoryBudget = None,
    allow_mismatch: AllowMismatch = False,
) -> None:
    """Compare a space's parents before a search: weights, settings, answers; advise."""
    from mergesearch.space import SearchSpace

    loaded = SearchSpace.load(space)
    quiet_optuna()

    from mergesearch.api import compare as compare_parents
    from mergesearch.cli.progress import Progress
    from mergesearch.diagnosis import markdown

    diagnosis = compare_parents(
        loaded,
        out,
        device=device,
        batch_size=batch_size,
        memory_budget=memory_budget,
        allow_mismatch=allow_mismatch,
        observer=Progress(),
    )
    if form == "json":
        typer.echo(diagnosis.to_json(), nl=False)
    elif form == "markdown":
        typer.echo(markdown(diagnosis), nl=False)
    else:
        _show(diagnosis, out, scorable=loaded.suite is not None)


def _show(diagnosis: Diagnosis, out: Path | None, *, scorable: bool) -> None:
    """Show tables, then what the models differ in, and the advice last."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mergesearch.diagnosis import NO_ADVICE, markdown, tables_of

    console = Console()
    if not console.is_terminal:
        print(markdown(diagnosis), end="")
        return
    for of in tables_of(diagnosis):
        table = Table(title=of.title, caption=of.note or None, box=None, header_style="bold")
        table.title_justify = table.caption_justify = "left"
        table.title_style = "bold"
        for name, numeric in zip(of.columns, of.numeric, strict=True):
            table.add_column(escape(name), justify="right" if numeric else "left")
        for row in of.rows:
            table.add_row(*(escape(cell.text) for cell in row))
        console.print(table)
        console.print()
    for difference in diagnosis.differences:
        console.print(f"The models differ: {escape(difference)}", highlight=False)
    console.print("Advice", style="bold")
    for advice in diagnosis.advice:
        console.print(f"- {escape(str(advice))}", highlight=False)
    if not diagnosis.advice:
        console.print(NO_ADVICE)
    if out is None and scorable:
        console.print("With --out RUN the parents are scored on the suite as well.")
