"""Score by task: every model of the leaderboard beside the others."""

from typing import TYPE_CHECKING

from mergesearch.report.plots.style import colour_of, figure, plain
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Models that are drawn; what ranks behind them is in the leaderboard.
_MOST = 8


def tasks(run: RunView) -> "Figure | None":
    """Draw each task's value of every model but finalists, with standard errors."""
    from plotly.graph_objects import Bar

    held_out = any(entry.held_out for entry in run.entries)
    scored = [e for e in run.entries if (e.held_out if held_out else e.search)]
    entries = [e for e in scored if e.role != "finalist"][:_MOST]
    if not entries:
        return None
    bars = []
    for entry in entries:
        assert entry.deciding
        of = entry.deciding.tasks
        errors = [1.96 * t.stderr if t.stderr is not None else None for t in of]
        bars.append(
            Bar(
                x=[plain(t.id.task) for t in of],
                y=[t.value for t in of],
                error_y={"type": "data", "array": errors, "width": 2, "thickness": 1},
                name=plain(entry.label),
                marker_color=colour_of(run, entry),
                hovertemplate="%{x}: %{y:.3f}<extra>" + plain(entry.label) + "</extra>",
            )
        )
    return figure(*bars, barmode="group", bargap=0.25, yaxis_title="value of the task's metric")
