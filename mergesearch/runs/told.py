"""Ended trials: from Optuna's attributes to the one record of them, and back."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mergesearch.runs.trials import TrialRecord
from mergesearch.samplers.trials import ERROR

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# The user attributes of a trial, beside ERROR.
#: Its recipe's hash.
RECIPE = "recipe"
#: The score of the suite: what a stopped candidate would have reached.
TOTAL = "total"
#: Share of the documents that it was scored on.
SHARE = "share"
#: Documents that the model answered for it, what the record knew aside.
DOCUMENTS = "documents"
#: Seconds that it took.
SECONDS = "seconds"
#: Workers that had trials beside each other when it ran, where there were several.
WORKERS = "workers"
#: The name of the starting point that it is.
LABEL = "label"
#: Whether it is a step of the refinement of the best.
REFINES = "refines"


def record_of(trial: "FrozenTrial", objectives: Sequence[str], method: str) -> TrialRecord:
    """Read a trial that Optuna's study has.

    Args:
        trial: scored, or one whose candidate failed.
        objectives: of the search, by name.
        method: of a space that has no other, whose trials do not name it.
    """
    from optuna.trial import TrialState

    attributes = trial.user_attrs
    scored = trial.state == TrialState.COMPLETE
    method = str(trial.params.get("method", method))
    label = "refined" if REFINES in attributes else attributes.get(LABEL)
    violations = dict(trial.constraints)
    return TrialRecord(
        number=trial.number,
        method=f"{method} ({label})" if label else method,
        recipe_hash=attributes.get(RECIPE),
        score=attributes.get(TOTAL),
        error=attributes.get(ERROR),
        share=attributes.get(SHARE, 1.0),
        objectives=dict(zip(objectives, trial.values, strict=True)) if scored else {},
        feasible=not any(violation > 0 for violation in violations.values()),
        violations=violations,
        n_documents=attributes.get(DOCUMENTS, 0),
        seconds=attributes.get(SECONDS, 0.0),
        n_workers=attributes.get(WORKERS, 1),
        refines=REFINES in attributes,
        params=trial.params,
        domains=trial.distributions,
    )


def scored_attributes(recipe_hash: str, score: float, share: float) -> Mapping[str, object]:
    """Return the attributes that a scored trial has beside what it cost."""
    return {RECIPE: recipe_hash, TOTAL: score, SHARE: share}
