"""Parameters of the best method's trials, by Optuna's own plots."""

import re
import warnings
from typing import TYPE_CHECKING

from mergesearch.report.plots.style import PALETTE, RISING, figure, plain, styled, whole_ticks
from mergesearch.report.run import RunView

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from plotly.graph_objects import Figure

#: Fewer trials say nothing of a parameter.
_LEAST = 4
#: Beside a plot.
_BAR = {"thickness": 10, "outlinewidth": 0}
#: Parameters that are drawn: the most important.
_MOST = 6
#: Lines that can still be told apart.
_MOST_LINES = 200


def importances(run: RunView) -> "Figure | None":
    """Draw how much of the score's variation each parameter explains (PED-ANOVA)."""
    from plotly.graph_objects import Bar

    found = _importances(run)
    if not found:
        return None
    names = list(found)[::-1]
    bar = Bar(
        x=[found[name] for name in names],
        y=[plain(name) for name in names],
        orientation="h",
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    drawn = figure(bar, height=90 + 26 * len(names), xaxis_title="share of the variation")
    drawn.update_yaxes(automargin=True)
    return drawn


def parallel(run: RunView) -> "Figure | None":
    """Draw a line a trial, of the best, from its score through its parameters."""
    from optuna.visualization import plot_parallel_coordinate

    names = list(_importances(run))[:_MOST]
    if not names:
        return None
    study = _best_of(run, _MOST_LINES)
    drawn = plot_parallel_coordinate(study, params=names, target=_score, target_name="score")
    drawn.update_layout(**styled(height=420), title_text="")
    drawn.update_layout(margin={"l": 40, "r": 60, "t": 40, "b": 40 + 14 * _most_lines(names)})
    order = ["score", *sorted(names)]
    drawn.update_xaxes(ticktext=[_broken(name) for name in order], tickangle=0)
    drawn.update_annotations(font_color=None)  # of the page
    _tick_whole(drawn, study, order)
    for line in drawn.data:  # its colours are for white paper only
        if line.mode == "lines":
            line.line.color = PALETTE[0]
            if not line.showlegend:  # a trial, and not the legend of those that keep constraints
                line.opacity = 0.1 + 0.8 * line.y[0]  # the score, 0 to 1
        else:
            line.marker.showscale = False
    return drawn


def slices(run: RunView) -> "Figure | None":
    """Draw score against each of the most important parameters."""
    from optuna.visualization import plot_slice

    study, names = run.method_study, list(_importances(run))[:_MOST]
    if study is None or not names:
        return None
    drawn = plot_slice(study, params=names, target=_score, target_name="score")
    drawn.update_layout(**styled(height=340), title_text="", width=max(360, 80 + 190 * len(names)))
    drawn.update_layout(margin_b=48 + 16 * _most_lines(names))
    bar = {**_BAR, "title": "trial"}
    for axis in drawn.select_xaxes():
        if (span := _whole_span(study, axis.title.text)) is not None:
            axis.update(**whole_ticks(*span))
        axis.title.text = _broken(axis.title.text)
    drawn.update_traces(
        meta="rising",
        marker={"colorscale": RISING, "size": 6, "line": {"width": 0}, "colorbar": bar},
    )
    return drawn


def _broken(name: str, most: int = 14) -> str:
    """Break a parameter's name at its signs, into lines that lie below an axis."""
    parts = re.findall(r"[^._]+[._]?|[._]", name)
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > most:
            lines.append("")
        lines[-1] += part
    return "<br>".join(map(plain, lines))


def _most_lines(names: list[str]) -> int:
    return max(_broken(name).count("<br>") for name in names)


def _whole_span(study: "Study", name: str) -> tuple[int, int] | None:
    """Give the least and the largest value of a parameter of whole numbers."""
    from optuna.distributions import IntDistribution

    trials = [t for t in study.get_trials(deepcopy=False) if name in t.params]
    if not trials or not all(isinstance(t.distributions[name], IntDistribution) for t in trials):
        return None
    values = [t.params[name] for t in trials]
    return min(values), max(values)


def _tick_whole(drawn: "Figure", study: "Study", order: list[str]) -> None:
    """Label axes of whole numbers at these alone; Optuna labels five equal steps."""
    for x, name in enumerate(order):
        if (span := _whole_span(study, name)) is None or span[0] == span[1]:
            continue
        low, high = span
        old = [a for a in drawn.layout.annotations if a.x == x]
        drawn.layout.annotations = [a for a in drawn.layout.annotations if a.x != x]
        for value in range(low, high + 1, whole_ticks(low, high)["dtick"]):
            look = {**old[0].to_plotly_json(), "text": str(value)}
            drawn.add_annotation(**{**look, "y": (value - low) / (high - low)})


def _importances(run: RunView) -> dict[str, float]:
    """Rank the parameters of the best method; none where trials say nothing."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study = run.method_study
    trials = study.get_trials(deepcopy=False) if study else []
    if study is None or len(trials) < _LEAST or len({_score(t) for t in trials}) < 2:
        return {}
    first, *others = (trial.params for trial in trials)
    names = [n for n in first if all(n in params for params in others)]
    varied = [n for n in names if any(params[n] != first[n] for params in others)]
    if not varied:
        return {}
    with warnings.catch_warnings():
        # of values that are low it says what they have in common; ours are turned round
        warnings.filterwarnings("ignore", message=".*to achieve low `target` values")
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(),
            params=varied,
            target=lambda trial: -_score(trial),
        )


def _best_of(run: RunView, n: int) -> "Study":
    """Pick the best trials of the method's."""
    import optuna

    assert run.method_study is not None
    trials = run.method_study.get_trials(deepcopy=False)
    study = optuna.create_study(directions=run.method_study.directions)
    study.add_trials(sorted(trials, key=_score, reverse=True)[:n])
    return study


def _score(trial: "FrozenTrial") -> float:
    from mergesearch.runs.told import TOTAL

    return trial.user_attrs[TOTAL]
