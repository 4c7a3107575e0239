"""Leaderboards as a LaTeX table."""

from mergesearch.report import Entry, ReportFormat
from mergesearch.scores import Scores


def _latex(entries: list[Entry]) -> str:
    rows = [("model", "search", "held-out")]
    rows += [(entry.label, _total(entry.search), _total(entry.held_out)) for entry in entries]
    lines = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([r"\begin{tabular}{lrr}", *lines, r"\end{tabular}"])


def _total(scores: Scores | None) -> str:
    return f"{scores.total:.3f}" if scores else "--"


LATEX = ReportFormat(_latex)
