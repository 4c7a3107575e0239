"""Plots as files: pictures for papers, or pages that move."""

from pathlib import Path
from typing import TYPE_CHECKING

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.files import whole_file, write_whole
from mergesearch.report.plots.table import PLOTS, figure_of
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FORMATS = ("png", "svg", "html")
#: Of pictures at least, in pixels of the svg; a png has twice as many.
_WIDTH = 900


def write_plot(run: Path, kind: str, out: Path, form: str | None = None) -> None:
    """Draw a plot of a run into a file.

    Args:
        run: the run's folder.
        kind: a key of `PLOTS`.
        out: the file.
        form: one of `FORMATS`, that of the file's ending if none is named; a picture is drawn by
            the browser that kaleido finds.

    Raises:
        InputError: there is no such plot or format, the file ends in another, it cannot be written,
            the run has nothing to draw, or a picture is asked for and kaleido or its browser is
            missing.
    """
    form = _form_of(out, form)
    for what, name, known in (("plot", kind, PLOTS), ("format", form, FORMATS)):
        if name not in known:
            raise InputError(unknown(what, name, known))
    figure = figure_of(RunView.of(run), kind)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    if form == "html":
        write_whole(out, figure.to_html(include_plotlyjs=True))
        return
    picture = _picture(figure, form)
    try:
        with whole_file(out) as file:
            file.write(picture)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None


def _form_of(out: Path, form: str | None) -> str:
    """Take a format from a file's ending, png without one.

    Raises:
        InputError: the two say different things.
    """
    ending = out.suffix.lower().removeprefix(".")
    named = ending if ending in FORMATS else None
    if form is not None and named not in (None, form):
        raise InputError(
            f"a file that ends in .{named} is not written as {form}; name it {out.stem}.{form}, or "
            "leave --format out"
        )
    return form or named or "png"


def _picture(figure: "Figure", form: str) -> bytes:
    width = max(_WIDTH, figure.layout.width or 0)
    remedy = "or take --format html, which needs neither"
    try:
        import kaleido  # noqa: F401
        from choreographer.errors import ChromeNotFoundError
    except ImportError:
        raise InputError(
            f"{form} needs the package kaleido; pip install 'mergesearch[plots]', {remedy}"
        ) from None
    from plotly.io import to_image

    try:
        return to_image(figure, format=form, width=width, scale=2 if form == "png" else 1)
    except (ChromeNotFoundError, RuntimeError):
        raise InputError(
            f"{form} is drawn by a browser, and kaleido finds none; install Chromium or Chrome, or "
            f"name it in BROWSER_PATH, {remedy}"
        ) from None
