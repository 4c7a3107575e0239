"""Search score against held-out: what was overrated lies below the line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mergesearch.report.entries import Entry
from mergesearch.report.plots.style import MUTED, PALETTE, colour_of, figure, plain
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

#: Models, the best first, that the legend names; others are named where they are pointed at.
_NAMED = 12


def trust(run: RunView) -> "Figure | None":
    """Draw every model that was scored on both splits, with its interval on held-out."""
    from plotly.graph_objects import Scatter

    both = [e for e in run.entries if e.search and e.held_out]
    if not both:
        return None
    finalists = [e for e in both if e.role == "finalist"]
    others = [e for e in both if e.role != "finalist"]
    dots = [
        _dots([entry], plain(entry.label), colour_of(run, entry), "circle", number < _NAMED)
        for number, entry in enumerate(others)
    ]
    if finalists:  # as many as there may be, they are one kind, of the winner's colour
        dots.append(_dots(finalists, "other finalists", PALETTE[0], "circle-open", True))
    ends = [min(min(d.x) for d in dots), max(max(d.x) for d in dots)]
    equal = Scatter(
        x=ends,
        y=ends,
        mode="lines",
        name="equal",
        line={"color": MUTED, "dash": "dot", "width": 1},
        hoverinfo="skip",
    )
    return figure(equal, *dots, xaxis_title="whole search split", yaxis_title="held-out")


def _dots(
    entries: Sequence[Entry], name: str, colour: str, symbol: str, is_named: bool
) -> "Scatter":
    """Draw models of one name in the legend; each has its own where it is pointed at."""
    from plotly.graph_objects import Scatter

    x, y, up, down = [], [], [], []
    for entry in entries:
        assert entry.search and entry.held_out
        total, bounds = entry.held_out.total, entry.interval
        x.append(entry.search.total)
        y.append(total)
        up.append(bounds.high - total if bounds else 0.0)
        down.append(total - bounds.low if bounds else 0.0)
    return Scatter(
        x=x,
        y=y,
        error_y={"type": "data", "array": up, "arrayminus": down, "width": 3},
        mode="markers",
        name=name,
        showlegend=is_named,
        marker={"size": 10, "color": colour, "symbol": symbol},
        text=[plain(entry.label) for entry in entries],
        hovertemplate="search %{x:.3f}, held-out %{y:.3f}<extra>%{text}</extra>",
    )
