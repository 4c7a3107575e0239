"""The commands that show a run as a page, as plots, and in Optuna's dashboard."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mergesearch.cli.options import RunFolder

Kind = Literal[
    "history",
    "coefficients",
    "spread",
    "importances",
    "parallel",
    "slices",
    "front",
    "tasks",
    "trust",
]


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    out: Annotated[
        Path | None, typer.Option(metavar="page.html", help="The file.", show_default="RUN's own")
    ] = None,
    texts: Annotated[
        bool, typer.Option("--texts/--no-texts", help="Quote the documents of largest change.")
    ] = True,
) -> None:
    """Write one run or several as a page: one file that opens from disk."""
    from mergesearch.report import write_page

    once = list({run.resolve(): run for run in runs}.values())  # named twice, shown once
    typer.echo(write_page(once, out, texts=texts))


def plot(
    run: RunFolder,
    kind: Annotated[Kind, typer.Option(help="Of the plot.")] = "history",
    form: Annotated[
        Literal["png", "svg", "html"] | None,
        typer.Option("--format", show_default="by the file's ending, or png"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default="KIND.FORMAT in RUN")
    ] = None,
) -> None:
    """Draw one plot of a run as a file, for papers."""
    from mergesearch.report.plots import write_plot

    path = out or run / f"{kind}.{form or 'png'}"
    write_plot(run, kind, path, form)
    typer.echo(path)


def dashboard(
    run: RunFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine only.")] = 8080,
) -> None:
    """Open a run's trials in Optuna's dashboard, with notes and the page's plots."""
    from mergesearch.report.dashboard import serve

    serve(run, port, say=lambda line: typer.echo(line, err=True))
