"""The look that all plots share, light and dark."""

from math import ceil
from typing import TYPE_CHECKING, Any

from mergesearch.report.entries import Entry
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Colours of categories, told apart on white and on near-black, and by those who see few colours.
PALETTE = (
    "#2b7bba",
    "#e0752d",
    "#1f9e77",
    "#b4559b",
    "#c49a1a",
    "#6f7fd8",
    "#cf4a55",
    "#6b8a94",
)
#: What stands behind, as the trials of other methods.
MUTED = "#8a929c"
#: From a part that is taken away over none to one that is added.
DIVERGING = ["#b35806", "#f1a340", "#f7f7f7", "#67a9cf", "#2166ac"]
#: From little to much.
SEQUENTIAL = ["#f2f5f8", "#72b2c9", "#0b5a7a"]
#: From the first trials to the last, and from low scores to high ones: all can be seen on white.
RISING = ["#b4cfdb", "#0b5a7a"]


def figure(*traces: Any, height: int = 380, **layout: Any) -> "Figure":
    """Make a figure without a background, which takes the colours of its page.

    Args:
        traces: of plotly.
        height: in pixels.
        layout: further keys of plotly's layout.
    """
    from plotly.graph_objects import Figure

    drawn = Figure(list(traces))
    drawn.update_layout(**styled(height=height), **layout)
    return drawn


def styled(height: int = 380) -> dict[str, Any]:
    """Give the layout that every figure has, those of Optuna as well."""
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 40, "b": 48},
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "colorway": list(PALETTE),
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "dragmode": False,
    }


def whole_ticks(low: float, high: float) -> dict[str, Any]:
    """Tick an axis of whole numbers at whole numbers, at some ten of them at most."""
    return {"tick0": ceil(low), "dtick": max(1, ceil((high - low) / 10)), "tickformat": ",d"}


def colour_of(run: RunView, entry: Entry) -> str:
    """Give a model its colour, the same in every plot; the run's merge has the first.

    And with it the finalists that were not chosen, so that there are enough for the others.
    """
    if entry is run.merge or entry.role == "finalist":
        return PALETTE[0]
    others = [e for e in run.entries if e is not run.merge and e.role != "finalist"]
    return PALETTE[1 + others.index(entry) % (len(PALETTE) - 1)]


def plain(text: str, most: int = 40) -> str:
    """Make a name safe for plotly, which reads some HTML, and short."""
    short = text if len(text) <= most else text[: most - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
