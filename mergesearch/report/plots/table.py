"""The table of plots."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergesearch.errors import InputError
from mergesearch.report.plots.coefficients import coefficient_map, spread_map
from mergesearch.report.plots.front import front
from mergesearch.report.plots.history import history
from mergesearch.report.plots.study import importances, parallel, slices
from mergesearch.report.plots.tasks import tasks
from mergesearch.report.plots.trust import trust
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Plot:
    """One plot of a run."""

    #: From a run to the figure; None where the run has nothing to draw.
    draw: "Callable[[RunView], Figure | None]"
    #: Of what it shows, for people.
    title: str
    #: Said where there is nothing to draw.
    needs: str


PLOTS = {
    "history": Plot(history, "Score against documents", "a scored trial"),
    "coefficients": Plot(
        coefficient_map, "Coefficients by layer, tensor group and parent", "a merge with weights"
    ),
    "spread": Plot(
        spread_map,
        "Spread of the coefficients over the best trials",
        "a merge with weights, and several scored trials that have the same",
    ),
    "importances": Plot(
        importances,
        "Importance of parameters",
        "four scored trials of one method and its search in the run's folder",
    ),
    "parallel": Plot(
        parallel,
        "Parameters and score, a line a trial",
        "four scored trials of one method and its search in the run's folder",
    ),
    "slices": Plot(
        slices,
        "Score by parameter",
        "four scored trials of one method and its search in the run's folder",
    ),
    "front": Plot(front, "Objectives against each other", "several objectives and a scored trial"),
    "tasks": Plot(tasks, "Score by task", "a confirmed winner"),
    "trust": Plot(trust, "Search score against held-out", "models scored on both splits"),
}
"""Every plot by its name on the command line."""


#: Pixels that a title takes.
_TITLE = 40


def figure_of(run: RunView, kind: str) -> "Figure":
    """Draw a plot of a run.

    Raises:
        InputError: the run has nothing to draw.
    """
    plot = PLOTS[kind]
    figure = plot.draw(run)
    if figure is None:
        raise InputError(f"{run.folder} has nothing to draw as {kind}: that needs {plot.needs}")
    figure.update_layout(
        title={"text": plot.title, "yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 14}},
        height=figure.layout.height + _TITLE,
        margin_t=figure.layout.margin.t + _TITLE,
    )
    below = 1 - _TITLE / figure.layout.height  # a legend that grows would reach into the title
    figure.update_layout(legend={"yref": "container", "y": below, "yanchor": "top"})
    return figure
