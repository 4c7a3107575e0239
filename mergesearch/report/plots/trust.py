"""Search score against held-out: what was overrated lies below the line."""

from typing import TYPE_CHECKING

from mergesearch.report.plots.style import MUTED, colour_of, figure, plain
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Models, the best first, that the legend names; others are named where they are pointed at.
_NAMED = 12


def trust(run: RunView) -> "Figure | None":
    """Draw every model that was scored on both splits, with its interval on held-out."""
    from plotly.graph_objects import Scatter

    both = [e for e in run.entries if e.search and e.held_out]
    if not both:
        return None
    dots = []
    for number, entry in enumerate(both):
        assert entry.search and entry.held_out
        total, bounds = entry.held_out.total, entry.interval
        low, high = (total - bounds.low, bounds.high - total) if bounds else (0.0, 0.0)
        dots.append(
            Scatter(
                x=[entry.search.total],
                y=[total],
                error_y={"type": "data", "array": [high], "arrayminus": [low], "width": 3},
                mode="markers",
                name=plain(entry.label),
                showlegend=number < _NAMED,
                marker={"size": 10, "color": colour_of(run, entry)},
                hovertemplate="search %{x:.3f}, held-out %{y:.3f}",
            )
        )
    ends = [min(d.x[0] for d in dots), max(d.x[0] for d in dots)]
    equal = Scatter(
        x=ends,
        y=ends,
        mode="lines",
        name="equal",
        line={"color": MUTED, "dash": "dot", "width": 1},
        hoverinfo="skip",
    )
    return figure(equal, *dots, xaxis_title="whole search split", yaxis_title="held-out")
