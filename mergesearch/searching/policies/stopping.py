"""The end of a search: its budget is spent, or trials bring nothing more."""

from collections.abc import Callable
from dataclasses import dataclass

from mergesearch.scores import paired_difference
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.history import History, scores_of
from mergesearch.space import SearchSettings

#: Of the interval of an improvement: when its low end is above 0, it is beyond noise.
_CONFIDENCE = 0.9
#: Trials in a row without an answer, after which a space has no other candidates, as where a method
#: has no number to change: no budget of documents would end the search.
_N_KNOWN = 50


@dataclass(frozen=True)
class Limit:
    """One limit of the budget, and how much of it is spent."""

    #: Trials, documents or minutes.
    unit: str
    used: float
    most: float

    @property
    def share(self) -> float:
        """The part of it that is spent; 1 or more where all is."""
        return self.used / self.most


def nearest_limit(settings: SearchSettings, history: History) -> Limit:
    """Return the limit of the budget of which most is spent; of equals the first."""
    return max(_limits(settings, history), key=lambda limit: limit.share)


def reason_to_stop(
    settings: SearchSettings, history: History, candidates: CandidateEvaluator
) -> str | None:
    """Say in a line why the search ends here; None where it goes on."""
    for limit in _limits(settings, history):
        if limit.share >= 1:
            return f"the budget of {limit.most:,} {limit.unit} is spent"
    latest = history.trials[-_N_KNOWN:]
    if len(latest) == _N_KNOWN and not any(t.error or t.n_documents for t in latest):
        return (
            f"{_N_KNOWN} trials in a row were candidates that are known: there seem to be no more"
        )
    n = settings.patience
    if n is None or len(history.trials) <= n:
        return None
    improvement = _improvement(history.before(n), history, candidates)
    if improvement is None:
        return None
    return f"{n} trials brought {improvement} (patience: {n})"


def _limits(settings: SearchSettings, history: History) -> list[Limit]:
    limits: list[tuple[str, Callable[[History], float], float | None]] = [
        ("trials", lambda h: h.n_asked, settings.trials),
        ("documents", lambda h: h.n_documents, settings.documents),
        ("minutes", lambda h: h.minutes, settings.minutes),
    ]
    return [Limit(unit, used(history), most) for unit, used, most in limits if most is not None]


def _improvement(then: History, now: History, candidates: CandidateEvaluator) -> str | None:
    """Say what the latest trials brought, if it is within noise; None if it is more."""
    if not then.front or not now.front:
        return None
    if {t.number for t in then.front} == {t.number for t in now.front}:
        return "no improvement"
    if len(now.goals.names) > 1:
        return None  # the front has grown
    old, new = (scores_of(history.front[0], candidates) for history in (then, now))
    gain = paired_difference(new, old, confidence=_CONFIDENCE)
    if gain.low > 0:
        return None
    return (
        f"an improvement within noise: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] "
        f"on the search split"
    )
