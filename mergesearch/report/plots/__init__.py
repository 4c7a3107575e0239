"""The plots of a run: a file and a row each, drawn by plotly."""

from mergesearch.report.plots.table import PLOTS, Plot, figure_of
from mergesearch.report.plots.writing import FORMATS, write_plot

__all__ = ["FORMATS", "PLOTS", "Plot", "figure_of", "write_plot"]
