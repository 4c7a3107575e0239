"""Results of the searches: score against documents, the goals, a table and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from tests.benchmarks.searches import ARMS, REFERENCE, SearchResult

OURS = "mergesearch"
#: What the winners of both families' searches without labels and with them should reach on the
#: test bed's held-out documents.
_HELD_OUT = {"mergesearch": 0.89, "without labels": 0.86}
#: Full evaluations' worth of documents at which the table reads the curves.
_MARKS = (2, 5, 10, 20, 30, 50, 100)


def at(run: SearchResult, n_documents: float) -> tuple[float, float]:
    """Search and held-out score of a search's best when it had scored so many documents.

    NaN before its first, and for held-out where it was not asked for.
    """
    score = held_out = float("nan")
    for incumbent, then in zip(run.incumbents, run.held_out, strict=True):
        if incumbent.n_documents <= n_documents:
            score, held_out = incumbent.score, float("nan") if then is None else then
    return score, held_out


def documents_to(run: SearchResult, score: float) -> float:
    """Documents after which a search first had a score; infinite where it never did."""
    reached = (i.n_documents for i in run.incumbents if i.score >= score)
    return next(reached, float("inf"))


def goals(runs: Sequence[SearchResult]) -> list[dict[str, Any]]:
    """The goals of one family's runs, each with what was reached."""
    arms = by_arm(runs)
    ours = arms.get(OURS, {})
    reached: list[dict[str, Any]] = []
    if any(run.family == "testbed" for run in ours.values()):
        for arm, goal in _HELD_OUT.items():
            if arm in arms:
                scores = [run.winner_held_out for _, run in sorted(arms[arm].items())]
                reached.append(
                    {
                        "goal": f"held-out of the winner, {arm}",
                        "at least": goal,
                        "reached": float(np.mean(scores)),
                        "by seed": scores,
                    }
                )
    reference = arms.get(REFERENCE, {})
    if both := sorted(set(ours) & set(reference)):
        shares = [
            documents_to(ours[s], reference[s].incumbents[-1].score) / reference[s].n_documents
            for s in both
        ]
        reached.append(
            {
                "goal": f"documents to the score of {REFERENCE} after 100 evaluations",
                "at most": 0.05,
                "reached": median(shares),
                "by seed": shares,
            }
        )
    for arm in (a for a in arms if a not in (OURS, "without labels")):
        if not (seeds := sorted(set(ours) & set(arms[arm]))):
            continue
        leads, intervals = zip(*(_lead(ours[s], arms[arm][s]) for s in seeds), strict=True)
        reached.append(
            {
                "goal": f"held-out of the winner above {arm}, the least of all seeds",
                "above": 0.0,
                "reached": min(leads),
                "by seed": list(leads),
                "intervals": list(intervals),
            }
        )
    stops = [run.stopped for arm in arms.values() for run in arm.values() if run.stopped]
    if stops:
        winners = [float(stopped[-1]) for stopped in stops]
        reached.append(
            {
                "goal": "winners of unraced searches that racing would have stopped",
                "at most": 0.05,
                "reached": float(np.mean(winners)),
                "by seed": winners,
            }
        )
    for arm in (a for a in (OURS, "without labels") if a in arms):
        gaps = [run.winner_score - run.winner_held_out for _, run in sorted(arms[arm].items())]
        reached.append(
            {
                "goal": f"search score less held-out of the winner, {arm}",
                "at most": 0.02,
                "reached": median(gaps),
                "by seed": gaps,
            }
        )
    return reached


def paired(one: SearchResult, other: SearchResult) -> tuple[float, float] | None:
    """95 % interval of the lead of a winner, from the documents that both answered.

    None where they did not answer the same.
    """
    pairs = list(zip(one.winner_documents, other.winner_documents, strict=False))
    if not pairs or any(len(a) != len(b) for a, b in pairs):
        return None
    leads = [np.subtract(a, b) for a, b in pairs]
    lead = float(np.mean([of.mean() for of in leads]))
    error = float(np.sqrt(sum(of.var(ddof=1) / len(of) for of in leads)) / len(leads))
    return lead - 1.96 * error, lead + 1.96 * error


def _lead(one: SearchResult, other: SearchResult) -> tuple[float, tuple[float, float] | None]:
    """By how much a winner is ahead on held-out at as many documents, with its interval.

    Which is None where the other went on: its best of then answered there for its score alone.
    """
    if other.n_documents > one.n_documents * 1.1:
        return one.winner_held_out - _held_out_then(other, one.n_documents), None
    return one.winner_held_out - other.winner_held_out, paired(one, other)


def _held_out_then(run: SearchResult, n_documents: int) -> float:
    """Held-out score of what was the best then, or of the last before it that has one.

    A search ends with the trial that spends its budget, so it may have scored a few more.
    """
    pairs = zip(run.incumbents, run.held_out, strict=True)
    return [h for i, h in pairs if i.n_documents <= n_documents and h is not None][-1]


def by_arm(runs: Sequence[SearchResult]) -> dict[str, dict[int, SearchResult]]:
    """Runs by arm and seed."""
    results: dict[str, dict[int, SearchResult]] = {}
    for run in runs:
        results.setdefault(run.arm, {})[run.seed] = run
    return results


def curves(runs: Sequence[SearchResult]) -> pd.DataFrame:
    """Median and quartiles over seeds of each arm's best, at some numbers of documents.

    Of held-out scores there are some only where every best was scored there.

    Columns: arm, evaluations (documents, in full evaluations), split, median, q1, q3.
    """
    rows = []
    for arm, of in by_arm(runs).items():
        for mark in _MARKS:
            values = [
                at(run, mark * run.n_each)
                for run in of.values()
                if run.n_documents >= mark * run.n_each
            ]
            for i, split in enumerate(("search", "held_out")):
                of_split = [v[i] for v in values]
                if of_split and not np.isnan(of_split).any():  # of all seeds, or of none
                    q1, mid, q3 = np.quantile(of_split, [0.25, 0.5, 0.75])
                    rows.append([arm, mark, split, mid, q1, q3])
    return pd.DataFrame(rows, columns=["arm", "evaluations", "split", "median", "q1", "q3"])


def draw(families: Mapping[str, Sequence[SearchResult]], path: Path) -> None:
    """The picture: the best against documents, a row a family and a column a split."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "mergesearch"  # the same picture for the same numbers
    from matplotlib import pyplot as plt

    panels = [
        (name, split)
        for name, runs in families.items()
        for split in ("search", "held_out")
        if split == "search" or all(v is not None for run in runs for v in run.held_out)
    ]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 4), squeeze=False, layout="constrained"
    )
    for axis, (name, split) in zip(axes[0], panels, strict=True):
        arms = by_arm(families[name])
        for i, arm in enumerate((REFERENCE, *ARMS)):
            if arm in arms:
                _draw_arm(axis, arm, list(arms[arm].values()), split, f"C{i}")
        axis.set_title(f"{name}: {split.replace('_', '-')} score of the best so far")
        axis.set_xlabel("documents scored, in full evaluations")
        axis.set_xscale("log")
        axis.set_xticks(_MARKS, [str(mark) for mark in _MARKS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _draw_arm(axis: Any, arm: str, runs: Sequence[SearchResult], split: str, color: str) -> None:
    end = min(run.n_documents / run.n_each for run in runs)
    x = np.geomspace(1, end, 120)
    which = 0 if split == "search" else 1
    y = np.array([[at(run, e * run.n_each)[which] for e in x] for run in runs])
    known = ~np.isnan(y).any(axis=0)
    if not known.any():
        return
    q1, mid, q3 = np.quantile(y[:, known], [0.25, 0.5, 0.75], axis=0)
    axis.plot(x[known], mid, label=arm, color=color, linewidth=2 if arm == OURS else 1.3)
    axis.fill_between(x[known], q1, q3, color=color, alpha=0.15, linewidth=0)
