"""The winner's coefficients as heat maps, and their spread over trials."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mergesearch.report.coefficients import Coefficients, coefficients, spread
from mergesearch.report.plots.style import DIVERGING, SEQUENTIAL, plain, styled, whole_ticks
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Trials whose coefficients are compared.
N_BEST = 10
#: Pixels of a tensor group, and between two parents.
_ROW, _GAP = 26, 44
#: Pixels that the scale beside the maps needs for its numbers.
_SCALE = 120
#: Of coefficients and their spreads no more than rounding is left below it.
_NOTHING = 1e-9


def coefficient_map(run: RunView) -> "Figure | None":
    """Draw a heat map for each parent."""
    found = _found(run)
    if found is None:
        return None
    bound = _top(found.tables)
    shown = {"zmin": -bound, "zmax": bound, "meta": "diverging", "colorscale": DIVERGING}
    return _maps(found, found.tables, shown)


def spread_map(run: RunView) -> "Figure | None":
    """Draw how far each coefficient spreads over the best trials that have it."""
    found = _found(run)
    hashes = [t.recipe_hash for t in run.best_trials if t.recipe_hash is not None][:N_BEST]
    if found is None or not hashes:
        return None
    spreads = spread([run.record.recipe(key) for key in hashes], found, run.name_of)
    if not spreads:
        return None
    shown = {"zmin": 0, "zmax": _top(spreads), "meta": "sequential", "colorscale": SEQUENTIAL}
    return _maps(found, spreads, shown)


def _found(run: RunView) -> Coefficients | None:
    recipe = run.best_recipe
    return coefficients(recipe, run.name_of) if recipe else None


def _maps(found: Coefficients, tables: Mapping[str, Any], shown: dict[str, Any]) -> "Figure":
    """Draw a table for each label below each other, with one bar for all."""
    from plotly.subplots import make_subplots

    labels = [label for label in found.tables if label in tables]
    titles = [
        plain(label if label == found.parameter else f"{label}: {found.parameter}")
        for label in labels
    ]
    n_rows = len(labels)
    height = max(_SCALE, n_rows * _ROW * len(found.groups) + (n_rows - 1) * _GAP)
    drawn = make_subplots(
        rows=n_rows,
        cols=1,
        subplot_titles=titles,
        vertical_spacing=_GAP / height if n_rows > 1 else 0.0,
    )
    for row, label in enumerate(labels, start=1):
        drawn.add_trace(_map(found, tables[label], row, shown), row, 1)
    drawn.update_layout(**styled(height=height + 90))
    drawn.update_layout(margin={"l": 20, "r": 60, "t": 30, "b": 60})
    drawn.update_annotations(font_size=12)
    drawn.update_yaxes(autorange="reversed", automargin=True)
    drawn.update_yaxes(showgrid=False, zeroline=False, ticks="")
    drawn.update_xaxes(showgrid=False, zeroline=False, ticks="")
    drawn.update_xaxes(showticklabels=False, **whole_ticks(0, found.n_layers - 1))
    drawn.update_xaxes(title_text="layer", showticklabels=True, row=n_rows)
    return drawn


def _top(tables: Mapping[str, Any]) -> float:
    """Find the largest size of any number for a scale, 1 where all are 0."""
    top = max((float(np.nanmax(np.abs(t), initial=0)) for t in tables.values()), default=0.0)
    return top if top > _NOTHING else 1.0


def _map(found: Coefficients, table: Any, row: int, shown: dict[str, Any]) -> Any:
    from plotly.graph_objects import Heatmap

    return Heatmap(
        z=np.round(table, 4),
        x=list(range(found.n_layers)),
        y=[plain(group) for group in found.groups],
        xgap=1,
        ygap=1,
        showscale=row == 1,  # one for all parents
        colorbar={"thickness": 10, "x": 1.01, "xanchor": "left", "outlinewidth": 0},
        hovertemplate="layer %{x}, %{y}<br>%{z:.3f}<extra></extra>",
        **shown,
    )
