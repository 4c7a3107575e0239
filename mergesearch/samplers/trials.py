"""The trials of a study that count, as a sampler may ask for them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

#: User attribute of a trial: why its candidate failed; an interrupted trial has none.
ERROR = "error"


def finished(study: "optuna.Study") -> "list[FrozenTrial]":
    """List scored trials, and those whose candidate failed, by number."""
    return [trial for trial in study.get_trials(deepcopy=False) if has_ended(trial)]


def has_ended(trial: "FrozenTrial") -> bool:
    """Say if a trial was scored or its candidate failed, and no kill interrupted it."""
    from optuna.trial import TrialState

    is_failed = trial.state == TrialState.FAIL
    return trial.state == TrialState.COMPLETE or (is_failed and ERROR in trial.user_attrs)


def was_queued(trial: "FrozenTrial") -> bool:
    """Say if a trial's parameters were queued, and not drawn by the sampler."""
    return bool(queued_params(trial))


def queued_params(trial: "FrozenTrial") -> dict[str, Any]:
    """Return the parameters that a trial was queued with; none where it was drawn."""
    return trial.system_attrs.get("fixed_params", {})
