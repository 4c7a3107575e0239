"""The Optuna study of a run: where it is kept, and what a kill left behind."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from mergesearch.errors import InputError
from mergesearch.files import drop_torn_line
from mergesearch.objectives import Direction
from mergesearch.runs.told import DOCUMENTS, LABEL, REFINES, TOTAL
from mergesearch.samplers.trials import ERROR, finished, queued_params
from mergesearch.searching.journal import Journal

__all__ = ["best_before", "count_interrupted", "enqueue", "finished", "open_study"]

# User attributes of the study.
#: Documents that the model answered for each trial that a kill interrupted, by its number.
INTERRUPTED = "interrupted"
#: Documents that were known when it was last opened, and that no trial is charged with.
UNCHARGED = "known beside trials"


def open_study(
    folder: Path,
    name: str,
    url: str | None = None,
    directions: Sequence[Direction] = ("maximize",),
) -> optuna.Study:
    """Create or re-open the study of a run that this process holds.

    A trial that a kill left running is failed, so that it repels no sampler. If its parameters
    were queued they are queued again; if they were drawn, the sampler draws them again.

    Args:
        folder: the run's folder, where a journal file is kept.
        name: of the study, which tells it from others in a database.
        url: a database for Optuna's RDB storage instead, as SQLAlchemy writes it.
        directions: of the objectives.

    Raises:
        InputError: the database cannot be opened.
    """
    study = optuna.create_study(
        storage=_storage(folder, url),
        study_name=name,
        directions=list(directions),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        _retry(study, trial)
    return study


def count_interrupted(study: optuna.Study, n_known: int) -> None:
    """Enter what was scored for trials that a kill interrupted, before another begins.

    Of several that were under way at once it is not known which document was whose: they share.

    Args:
        study: re-opened.
        n_known: documents that are known now.
    """
    counted = dict(study.user_attrs.get(INTERRUPTED, {}))
    n_charged = sum(trial.user_attrs.get(DOCUMENTS, 0) for trial in finished(study))
    n_charged += sum(counted.values())
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    interrupted = [str(t.number) for t in failed if ERROR not in t.user_attrs]
    new = [number for number in interrupted if number not in counted]
    if new and UNCHARGED in study.user_attrs:
        n = n_known - n_charged - study.user_attrs[UNCHARGED]
        for i, number in enumerate(new):
            counted[number] = n // len(new) + (i < n % len(new))
        study.set_user_attr(INTERRUPTED, counted)
        n_charged += n
    if study.user_attrs.get(UNCHARGED) != n_known - n_charged:
        study.set_user_attr(UNCHARGED, n_known - n_charged)


def best_before(folder: Path, name: str, url: str | None = None, n: int = 10) -> list[FrozenTrial]:
    """Find the best trials of the study that the run had before this, if it had any.

    Args:
        folder: as for `open_study`.
        name: of the present study; what follows its last hyphen tells it from the run's others.
        url: as for `open_study`.
        n: how many trials at most.

    Returns:
        Scored trials, the best first, of the study in which a trial ended last.
    """
    storage = _storage(folder, url)
    family = name.rpartition("-")[0]
    names = [
        other
        for other in optuna.get_all_study_names(storage)
        if other != name and other.rpartition("-")[0] == family
    ]
    studies = [optuna.load_study(study_name=other, storage=storage) for other in names]
    scored = [study.get_trials(states=(TrialState.COMPLETE,)) for study in studies]
    latest = max((trials for trials in scored if trials), key=_last_end, default=[])
    return sorted(latest, key=lambda trial: -trial.user_attrs[TOTAL])[:n]


def enqueue(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Queue the parameters of another study's trials that this one has not tried."""
    for trial in trials:
        study.enqueue_trial(trial.params, user_attrs=_label_of(trial), skip_if_exists=True)


def _last_end(trials: Sequence[FrozenTrial]) -> datetime:
    return max(trial.datetime_complete or datetime.min for trial in trials)


def _storage(folder: Path, url: str | None) -> BaseStorage:
    if url is not None:
        try:
            return optuna.storages.RDBStorage(url)
        except Exception as error:  # SQLAlchemy's and the drivers' own errors have no common root
            reason = str(error).splitlines()[0]
            raise InputError(f"--storage {url}: cannot be opened: {reason}") from None
    journal = folder / "journal.log"
    drop_torn_line(journal)
    return JournalStorage(Journal(journal))


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Free an interrupted trial, queued again, and once, if it was queued before."""
    waiting = study.get_trials(states=(TrialState.WAITING,))
    params = queued_params(trial)
    # one that has failed by itself was only not told so
    if params and ERROR not in trial.user_attrs and params not in map(queued_params, waiting):
        study.enqueue_trial(params, user_attrs=_label_of(trial))
    study.tell(trial.number, state=TrialState.FAIL)


def _label_of(trial: FrozenTrial) -> dict[str, Any]:
    return {key: value for key, value in trial.user_attrs.items() if key in (LABEL, REFINES)}
