"""Objectives against each other, two at a time, the front with its errors."""

from itertools import combinations
from typing import TYPE_CHECKING, Any

from mergesearch.objectives import SCORE
from mergesearch.report.entries import Entry
from mergesearch.report.plots.style import MUTED, PALETTE, plain, styled
from mergesearch.report.run import RunView
from mergesearch.scores import interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Pixels of a pair of objectives, and of what lies between two: ticks and the axis's title.
_PANEL, _GAP = 360, 84


def front(run: RunView) -> "Figure | None":
    """Draw a panel for each pair of objectives.

    Trials are dots, on the documents of the search; the front's models, on the whole search split,
    have 95 % intervals.
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    trials = [trial for trial in run.trials if trial.objectives]
    if len(run.objectives) < 2 or not trials:
        return None
    pairs = list(combinations(run.objectives, 2))
    models = [entry for entry in run.entries if entry.role in ("winner", "front")]
    height = _PANEL * len(pairs)
    drawn = make_subplots(rows=len(pairs), cols=1, vertical_spacing=_GAP / height)
    for row, (across, up) in enumerate(pairs, start=1):
        dots = Scatter(
            x=[t.objectives[across] for t in trials],
            y=[t.objectives[up] for t in trials],
            mode="markers",
            name="trials",
            showlegend=row == 1,
            marker={
                "size": 6,
                "color": MUTED,
                "symbol": ["circle" if t.share == 1 else "circle-open" for t in trials],
            },
            text=[f"trial {t.number}: {plain(t.method)}" for t in trials],
            hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        )
        drawn.add_trace(dots, row, 1)
        named = Scatter(
            x=[entry.value(across) for entry in models],
            y=[entry.value(up) for entry in models],
            error_x=_errors(models, across),
            error_y=_errors(models, up),
            mode="markers",
            name="front",
            showlegend=row == 1,
            marker={"size": 10, "color": PALETTE[1], "symbol": "diamond"},
            text=[plain(entry.label) for entry in models],
            hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        )
        drawn.add_trace(named, row, 1)
        drawn.update_xaxes(title_text=plain(across), row=row)
        drawn.update_yaxes(title_text=plain(up), row=row)
    drawn.update_layout(**styled(height=height))
    return drawn


def _errors(models: list[Entry], objective: str) -> dict[str, Any]:
    """Bound an objective of each model; one that no document decides has no error."""
    above, below = [], []
    for entry in models:
        scores = entry.search if objective == SCORE else entry.part(objective)
        value = entry.value(objective)
        if scores is None or value is None:
            above.append(0.0)
            below.append(0.0)
            continue
        bounds = interval(scores, n_resamples=2_000)
        above.append(bounds.high - bounds.value)
        below.append(bounds.value - bounds.low)
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1, "width": 3}
