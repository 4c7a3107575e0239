"""When a search has had enough, and why."""

from mergesearch.candidates import Judge
from mergesearch.evaluation import paired_difference
from mergesearch.space import SearchSettings
from mergesearch.study.history import History, scores_of

#: Of the interval of an improvement: when its low end is above 0, it is beyond noise.
_CONFIDENCE = 0.9


def share_spent(settings: SearchSettings, history: History) -> float:
    """How much of the budget is spent, by whichever of its limits is nearest."""
    return max(used / limit for _, used, limit in _limits(settings, history))


def reason_to_stop(settings: SearchSettings, history: History, judge: Judge) -> str | None:
    """Why the search ends here, in a line; None where it goes on."""
    for what, used, limit in _limits(settings, history):
        if used >= limit:
            return f"the budget of {limit:g} {what} is spent"
    n = settings.patience
    if n is None or len(history.trials) <= n:
        return None
    improvement = _improvement(history.before(n), history, judge)
    if improvement is None:
        return None
    return f"{n} trials brought {improvement} (patience: {n})"


def _limits(settings: SearchSettings, history: History) -> list[tuple[str, float, float]]:
    limits = [
        ("trials", len(history.trials), settings.trials),
        ("documents", history.n_documents, settings.documents),
        ("minutes", history.minutes, settings.minutes),
    ]
    return [(what, float(used), float(limit)) for what, used, limit in limits if limit is not None]


def _improvement(then: History, now: History, judge: Judge) -> str | None:
    """What the latest trials brought, where it is within noise; None where it is more."""
    if not then.front or not now.front:
        return None
    if {t.number for t in then.front} == {t.number for t in now.front}:
        return "no improvement"
    if len(now.goals.names) > 1:
        return None  # the front has grown
    old, new = (scores_of(history.front[0], judge) for history in (then, now))
    gain = paired_difference(new, old, confidence=_CONFIDENCE)
    if gain.low > 0:
        return None
    return (
        f"an improvement within noise: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] "
        f"on the search split"
    )
