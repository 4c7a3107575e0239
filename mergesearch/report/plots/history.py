"""Score against documents: every trial, and the best so far."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from mergesearch.report.plots.style import MUTED, figure, plain, whole_ticks
from mergesearch.report.run import RunView
from mergesearch.runs import TrialRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Below it an axis is ticked one by one.
_FEW = 8


def history(run: RunView) -> "Figure | None":
    """Draw scored trials by method, stopped ones hollow, and the best so far."""
    from plotly.graph_objects import Scatter

    trials = [trial for trial in run.trials if trial.score is not None]
    if not trials:
        return None
    costs = [trial.n_documents for trial in run.trials]
    known = any(costs)
    totals = dict(zip((t.number for t in run.trials), accumulate(costs), strict=True))
    at = {t.number: totals[t.number] if known else t.number for t in trials}
    by_method: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        by_method.setdefault(trial.method.partition(" (")[0], []).append(trial)
    dots = [
        Scatter(
            x=[at[t.number] for t in of],
            y=[t.score for t in of],
            mode="markers",
            name=plain(method),
            marker={
                "size": 8,
                "symbol": [_symbol(t) for t in of],
                "line": {"width": [0 if t.share == 1 else 1.5 for t in of]},
            },
            text=[_label(t) for t in of],
            hovertemplate="%{text}<br>%{y:.4f} at %{x:,}<extra></extra>",
        )
        for method, of in by_method.items()
    ]
    best = _best_so_far(trials)
    line = Scatter(
        x=[at[t.number] for t in best] + [max(at.values())],
        y=[t.score for t in best] + [best[-1].score] if best else [],
        mode="lines",
        name="best so far",
        line={"shape": "hv", "width": 2, "color": MUTED},
        hoverinfo="skip",
    )
    drawn = figure(
        *([line] if best else []),
        *dots,
        xaxis_title="documents answered" if known else "trial",
        yaxis_title="search score",
    )
    if max(at.values()) - min(at.values()) < _FEW:  # or there are ticks at halves
        drawn.update_xaxes(**whole_ticks(min(at.values()), max(at.values())))
    return drawn


def _best_so_far(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Pick the trials that were better than all before, among those scored in full."""
    best: list[TrialRecord] = []
    for trial in (t for t in trials if t.is_whole and t.feasible):
        if not best or (trial.score or 0.0) > (best[-1].score or 0.0):
            best.append(trial)
    return best


def _symbol(trial: TrialRecord) -> str:
    return "circle" if trial.share == 1 else "circle-open"


def _label(trial: TrialRecord) -> str:
    early = "" if trial.share == 1 else f", stopped at {trial.share * 100:.0f} %"
    broken = "" if trial.feasible else ", breaks a constraint"
    return f"trial {trial.number}: {plain(trial.method, 60)}{early}{broken}"
