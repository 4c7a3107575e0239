"""The winner's coefficients as heat maps, beside their spread over trials."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mergesearch.report.coefficients import Coefficients, coefficients, spread
from mergesearch.report.plots.style import DIVERGING, SEQUENTIAL, plain, styled
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Trials whose coefficients are compared.
N_BEST = 10
#: Pixels of a tensor group, and between two parents.
_ROW, _GAP = 26, 44


def coefficient_map(run: RunView) -> "Figure | None":
    """Draw a heat map for each parent, and one of how its coefficients spread."""
    from plotly.subplots import make_subplots

    recipe = run.best_recipe
    found = coefficients(recipe, run.name_of) if recipe else None
    if found is None:
        return None
    hashes = [t.recipe_hash for t in run.best_trials if t.recipe_hash is not None][:N_BEST]
    spreads = spread([run.record.recipe(key) for key in hashes], found, run.name_of)
    n_rows, n_columns = len(found.tables), 2 if spreads else 1
    titles = []
    for label in found.tables:
        named = label if label == found.parameter else f"{label}: {found.parameter}"
        titles += [plain(named), f"spread of the {len(hashes)} best"][:n_columns]
    tall = _ROW * len(found.groups)
    height = n_rows * tall + (n_rows - 1) * _GAP
    drawn = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=titles,
        vertical_spacing=_GAP / height if n_rows > 1 else 0.0,
        horizontal_spacing=0.14,
        shared_yaxes=True,
    )
    bound, bar = _top(found.tables), 0.43 if spreads else 1.0
    shown = {"zmin": -bound, "zmax": bound, "meta": "diverging", "colorscale": DIVERGING}
    for row, table in enumerate(found.tables.values(), start=1):
        drawn.add_trace(_map(found, table, row, bar, shown), row, 1)
    shown = {"zmin": 0, "zmax": _top(spreads), "meta": "sequential", "colorscale": SEQUENTIAL}
    for row, label in enumerate(found.tables, start=1):
        if label in spreads:
            drawn.add_trace(_map(found, spreads[label], row, 1.0, shown), row, 2)
    drawn.update_layout(**styled(height=height + 90))
    drawn.update_layout(margin={"l": 20, "r": 60, "t": 30, "b": 60})
    drawn.update_annotations(font_size=12)
    drawn.update_yaxes(autorange="reversed", automargin=True)
    drawn.update_yaxes(showgrid=False, zeroline=False, ticks="")
    drawn.update_xaxes(showgrid=False, zeroline=False, ticks="")
    drawn.update_xaxes(tickformat="d", showticklabels=False)
    drawn.update_xaxes(title_text="layer", showticklabels=True, row=n_rows)
    return drawn


def _top(tables: Mapping[str, Any]) -> float:
    """Find the largest size of any number, above 0 for the sake of a scale."""
    return max([1e-9, *(float(np.nanmax(np.abs(t), initial=0)) for t in tables.values())])


def _map(found: Coefficients, table: Any, row: int, at: float, shown: dict[str, Any]) -> Any:
    from plotly.graph_objects import Heatmap

    return Heatmap(
        z=np.round(table, 4),
        x=list(range(found.n_layers)),
        y=[plain(group) for group in found.groups],
        xgap=1,
        ygap=1,
        showscale=row == 1,  # one for all parents
        colorbar={"thickness": 10, "x": at + 0.01, "xanchor": "left", "outlinewidth": 0},
        hovertemplate="layer %{x}, %{y}<br>%{z:.3f}<extra></extra>",
        **shown,
    )
